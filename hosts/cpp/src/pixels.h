#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "edgeemo.h"

namespace edgeemo_host {

constexpr int MIN_SIDE = 16;    // pixels; below it no expression is recognisable
constexpr int MAX_CROP = 7094;  // pixels a side of a crop that extends over the edges

// An image of 8 bits per channel, gray or RGB, without gaps between its rows.
struct Image {
  Image(int width, int height, int channels)
      : width(width), height(height), channels(channels), pixels(size_t(width) * height * channels) {}
  uint8_t *row(int y) { return pixels.data() + size_t(y) * width * channels; }
  const uint8_t *row(int y) const { return pixels.data() + size_t(y) * width * channels; }
  int width, height, channels;
  std::vector<uint8_t> pixels;
};

// Somebody else's image: gray, RGB or BGR.
struct View {
  View(const Image &image)
      : data(image.pixels.data()),
        width(image.width),
        height(image.height),
        channels(image.channels),
        stride(ptrdiff_t(image.width) * image.channels) {}
  explicit View(const edgeemo_frame &frame);
  const uint8_t *row(int y) const { return data + y * stride; }
  const uint8_t *data;
  int width, height, channels;
  ptrdiff_t stride;    // bytes from a row to the next
  bool is_bgr = false;  // channels stand in the order blue, green, red
};

// Raise Error for a frame without pixels, of less than MIN_SIDE a side, or with rows that overlap.
void check_frame(const edgeemo_frame *frame);

// Return a square of whole pixels in RGB or gray; outside the image, the nearest pixel of its edge is repeated.
Image take_square(const View &image, int left, int top, int side);

// Return the largest central square.
Image take_centre(const View &image);

// Return an image in gray (ITU-R 601, as Pillow's "L") or RGB.
Image convert(const Image &image, bool to_gray);

}  // namespace edgeemo_host
