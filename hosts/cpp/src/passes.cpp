#include "passes.h"

#include <algorithm>
#include <cmath>

namespace edgeemo_host {
namespace {

constexpr double TILE_FACE = 48;  // pixels of the smallest face that tiles are made for
constexpr int MAX_TILES = 36;
constexpr double OVERLAP = 0.25;  // of a tile with the next one

int count_tiles(int length, double side) {
  return side >= length ? 1 : int(std::ceil((length / side - OVERLAP) / (1 - OVERLAP) - 1e-9));
}

// Return where tiles start that are spread evenly. nearbyint rounds half to even, as Python's round does.
std::vector<int> spread(int length, int side) {
  const int count = count_tiles(length, side);
  std::vector<int> starts;
  for (int k = 0; k < count; ++k)
    starts.push_back(count > 1 ? int(std::nearbyint(double(k) * (length - side) / (count - 1))) : 0);
  return starts;
}

}  // namespace

std::vector<Pass> plan_passes(int width, int height, double smallest_face, bool half, edgeemo_search search) {
  std::vector<Pass> passes = {{0, 0, width, height}};
  if (half) passes.push_back({0, 0, width, height, 0.5});
  const int longer = std::max(width, height);
  if (search == EDGEEMO_BY_SIZE) search = smallest_face * longer <= TILE_FACE ? EDGEEMO_FEW : EDGEEMO_MANY;
  if (search == EDGEEMO_FEW) return passes;
  double wanted = std::min(TILE_FACE / smallest_face, longer / (2 - OVERLAP));
  while (int64_t(count_tiles(width, wanted)) * count_tiles(height, wanted) > MAX_TILES) wanted *= 1.02;
  const int side = std::min(int(std::ceil(wanted)), longer);
  for (const int top : spread(height, side))
    for (const int left : spread(width, side)) passes.push_back({left, top, std::min(side, width), std::min(side, height)});
  return passes;
}

Canvas draw_canvas(const View &image, const Pass &pass, int side) {
  const double fit = side * pass.share / std::max(pass.width, pass.height);
  const int width = std::max(1, int(std::nearbyint(pass.width * fit)));
  const int height = std::max(1, int(std::nearbyint(pass.height * fit)));
  const Image part = resize_in_two_steps(
      image, width, height,
      {float(pass.left), float(pass.top), float(pass.left + pass.width), float(pass.top + pass.height)});
  const int left = (side - width) / 2, top = (side - height) / 2;
  const double scale_x = double(pass.width) / width, scale_y = double(pass.height) / height;
  Canvas canvas{Image(side, side, 3), scale_x, scale_y, pass.left - left * scale_x, pass.top - top * scale_y};
  for (int y = 0; y < height; ++y) {
    uint8_t *target = canvas.pixels.row(top + y) + left * 3;
    for (int x = 0; x < width; ++x, target += 3) {
      const uint8_t *pixel = part.row(y) + x * part.channels;
      for (int channel = 0; channel < 3; ++channel)
        target[image.is_bgr ? 2 - channel : channel] = pixel[part.channels == 1 ? 0 : channel];
    }
  }
  return canvas;
}

Seen to_image(Candidate found, const Canvas &canvas, const Pass &pass, int width, int height) {
  found[2] *= canvas.scale_x;
  found[3] *= canvas.scale_y;
  for (const size_t first : {0, 5, 7, 9, 11, 13, 15}) {
    found[first] = found[first] * canvas.scale_x + canvas.corner_x;
    found[first + 1] = found[first + 1] * canvas.scale_y + canvas.corner_y;
  }
  Seen seen{found, {}, false};
  const int first[] = {pass.left, pass.top}, extent[] = {pass.width, pass.height}, ends[] = {width, height};
  for (size_t axis = 0; axis < 2; ++axis) {
    const double from = first[axis], to = first[axis] + extent[axis];
    const double low = found[axis], high = found[axis] + found[2 + axis];
    seen.part[axis] = std::clamp(low, from, to);
    seen.part[2 + axis] = std::clamp(high, from, to) - seen.part[axis];
    seen.cut |= (low < from && from > 0) || (high > to && to < ends[axis]);
  }
  return seen;
}

}  // namespace edgeemo_host
