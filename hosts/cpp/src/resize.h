#pragma once

#include "pixels.h"

namespace edgeemo_host {

// A part of an image in pixels; its sides need not be whole pixels.
struct Box {
  float left, top, right, bottom;
};

// Resize a part of an image as Pillow's Image.resize with BILINEAR does: with a support that grows with the scale, first
// every row, then every column, each rounded to 8 bits. Channels stay in the view's order.
Image resize(const View &image, int width, int height, const Box &box);

// The same with reducing_gap=2: a part that is far larger than the result is first averaged down by whole factors.
Image resize_in_two_steps(const View &image, int width, int height, const Box &box);

}  // namespace edgeemo_host
