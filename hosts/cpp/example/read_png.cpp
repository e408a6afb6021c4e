#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <memory>

#include "errors.h"
#include "read_image.h"

using edgeemo_host::Error;
using edgeemo_host::Image;

namespace {

constexpr int MID_GREY = 128;  // background of transparent pixels

struct Reader {
  const std::string *content;
  size_t at = 0;
  std::string error;
};

void read_bytes(png_structp png, png_bytep target, size_t count) {
  auto *reader = static_cast<Reader *>(png_get_io_ptr(png));
  if (count > reader->content->size() - reader->at) png_error(png, "it ends too early");
  std::copy_n(reader->content->begin() + ptrdiff_t(reader->at), count, target);
  reader->at += count;
}

[[noreturn]] void keep_error(png_structp png, png_const_charp message) {
  static_cast<Reader *>(png_get_error_ptr(png))->error = message;
  longjmp(png_jmpbuf(png), 1);
}

void ignore(png_structp, png_const_charp) {}

// Blend a transparent value with mid-grey in the integer arithmetic of Pillow's alpha_composite.
uint8_t blend(int value, int alpha) {
  if (alpha == 0) return MID_GREY;
  const int part = alpha << 7, sum = value * part + MID_GREY * (255 * 128 - part) + (0x80 << 7);
  return uint8_t((((sum >> 8) + sum) >> 8) >> 7);
}

// Return gray or RGB of 1 to 4 channels, of which the second or fourth is alpha; a gray image with alpha becomes RGB.
Image flatten(const Image &image) {
  if (image.channels % 2 == 1) return image;
  Image flat(image.width, image.height, 3);
  uint8_t *target = flat.pixels.data();
  for (size_t at = 0; at < image.pixels.size(); at += size_t(image.channels)) {
    const int alpha = image.pixels[at + size_t(image.channels) - 1];
    for (size_t k = 0; k < 3; ++k) *target++ = blend(image.pixels[at + (image.channels == 2 ? 0 : k)], alpha);
  }
  return flat;
}

// libpng reports errors by longjmp, which must not skip the destructor of a local variable: those are the caller's.
bool decode(png_structp png, png_infop info, Image &image, std::vector<png_bytep> &rows, int &orientation) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_read_info(png, info);
  const bool is_gray = (png_get_color_type(png, info) & PNG_COLOR_MASK_COLOR) == 0;
  if (png_get_bit_depth(png, info) == 16) is_gray ? png_set_scale_16(png) : png_set_strip_16(png);
  png_set_expand(png);
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  const auto width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  if (double(width) * height > MAX_PIXELS) png_error(png, "more than 64 megapixels, the limit");
  image = Image(int(width), int(height), png_get_channels(png, info));
  rows.resize(height);
  for (size_t y = 0; y < height; ++y) rows[y] = image.row(int(y));
  for (int pass = 0; pass < passes; ++pass) png_read_rows(png, rows.data(), nullptr, height);
  png_read_end(png, info);
#ifdef PNG_eXIf_SUPPORTED
  png_uint_32 size = 0;
  png_bytep exif = nullptr;
  if (png_get_eXIf_1(png, info, &size, &exif)) orientation = read_orientation(exif, size);
#endif
  return true;
}

}  // namespace

Decoded read_png(const std::string &content) {
  Reader reader{&content, 0, ""};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, keep_error, ignore);
  if (!png) throw std::bad_alloc();
  png_infop info = png_create_info_struct(png);
  png_set_read_fn(png, &reader, read_bytes);
  Image image(0, 0, 1);
  std::vector<png_bytep> rows;
  int orientation = 1;
  const bool done = info && decode(png, info, image, rows, orientation);
  png_destroy_read_struct(&png, &info, nullptr);
  if (!done) throw Error(EDGEEMO_DATA, "the PNG cannot be read: " + reader.error);
  return {flatten(image), orientation};
}
