#pragma once

#include "merge.h"
#include "pixels.h"
#include "runtime.h"

namespace edgeemo_host {

constexpr int CANVAS = 192;  // pixels a side

// Return the candidates on a canvas of RGB with a score of at least `least`, in pixels of the canvas: the decoding of
// MediaPipe's face_detection_full_range (V. Bazarevsky et al., "BlazeFace", 2019, arXiv:1907.05047).
Candidates find_candidates(const Session &network, const Image &canvas, double least);

}  // namespace edgeemo_host
