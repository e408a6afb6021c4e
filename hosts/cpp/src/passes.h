#pragma once

#include <vector>

#include "edgeemo.h"
#include "merge.h"
#include "resize.h"

namespace edgeemo_host {

// A part of the image, in pixels, that is resized to `share` of the canvas, centred; the rest is black.
struct Pass {
  int left, top, width, height;
  double share = 1;
};

// What a network sees of a pass, in RGB, and the way back to the image.
struct Canvas {
  Image pixels;
  double scale_x, scale_y;    // pixels of the image per pixel of the canvas
  double corner_x, corner_y;  // of the canvas, in pixels of the image
};

// Return the passes for an image, as edgeemo/faces/passes.py plans them.
std::vector<Pass> plan_passes(int width, int height, double smallest_face, bool half, edgeemo_search search);

// Resize a pass onto a black canvas of side x side px.
Canvas draw_canvas(const View &image, const Pass &pass, int side);

// Return a candidate on the canvas in pixels of the image, with what of it is inside the pass.
Seen to_image(Candidate found, const Canvas &canvas, const Pass &pass, int width, int height);

}  // namespace edgeemo_host
