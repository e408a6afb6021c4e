#include "pixels.h"

#include <algorithm>
#include <cstdlib>

#include "errors.h"

namespace edgeemo_host {

View::View(const edgeemo_frame &frame)
    : data(frame.pixels),
      width(frame.width),
      height(frame.height),
      channels(frame.format == EDGEEMO_GRAY ? 1 : 3),
      stride(frame.stride ? frame.stride : ptrdiff_t(frame.width) * channels),
      is_bgr(frame.format == EDGEEMO_BGR) {}

void check_frame(const edgeemo_frame *frame) {
  if (!frame || !frame->pixels) throw Error(EDGEEMO_USAGE, "expected a frame with pixels, got NULL");
  if (frame->format < EDGEEMO_GRAY || frame->format > EDGEEMO_BGR)
    throw Error(EDGEEMO_USAGE, "expected the format EDGEEMO_GRAY, EDGEEMO_RGB or EDGEEMO_BGR, got " +
                                   std::to_string(int(frame->format)));
  if (std::min(frame->width, frame->height) < MIN_SIDE)
    throw Error(EDGEEMO_DATA, "image is " + std::to_string(frame->width) + "x" + std::to_string(frame->height) +
                                  " px; a face needs at least 16 px a side");
  const ptrdiff_t row = ptrdiff_t(frame->width) * (frame->format == EDGEEMO_GRAY ? 1 : 3);
  if (frame->stride && std::abs(frame->stride) < row)
    throw Error(EDGEEMO_USAGE, "expected a stride of at least " + std::to_string(row) + " bytes, got " +
                                   std::to_string(frame->stride));
}

Image take_square(const View &image, int left, int top, int side) {
  Image square(side, side, image.channels);
  const int red = image.is_bgr ? 2 : 0;
  for (int y = 0; y < side; ++y) {
    const uint8_t *source = image.row(std::clamp(top + y, 0, image.height - 1));
    uint8_t *target = square.row(y);
    for (int x = 0; x < side; ++x) {
      const uint8_t *pixel = source + ptrdiff_t(std::clamp(left + x, 0, image.width - 1)) * image.channels;
      for (int channel = 0; channel < image.channels; ++channel)
        *target++ = pixel[image.channels == 1 ? 0 : std::abs(red - channel)];
    }
  }
  return square;
}

Image take_centre(const View &image) {
  const int side = std::min(image.width, image.height);
  return take_square(image, (image.width - side) / 2, (image.height - side) / 2, side);
}

Image convert(const Image &image, bool to_gray) {
  if ((image.channels == 1) == to_gray) return image;
  Image converted(image.width, image.height, to_gray ? 1 : 3);
  const uint8_t *pixel = image.pixels.data();
  for (uint8_t *target = converted.pixels.data(); pixel < image.pixels.data() + image.pixels.size();
       pixel += image.channels) {
    if (to_gray)
      *target++ = uint8_t((19595 * pixel[0] + 38470 * pixel[1] + 7471 * pixel[2] + 32768) >> 16);
    else
      target = std::fill_n(target, 3, *pixel);
  }
  return converted;
}

}  // namespace edgeemo_host
