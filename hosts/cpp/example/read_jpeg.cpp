#include <cstdio>  // jpeglib.h needs it

#include <jpeglib.h>

#include <csetjmp>

#include "errors.h"
#include "read_image.h"

using edgeemo_host::Error;
using edgeemo_host::Image;

namespace {

constexpr int APP1 = JPEG_APP0 + 1;
const std::string EXIF("Exif\0\0", 6);

struct Failure {
  jpeg_error_mgr manager;
  jmp_buf back;
  char message[JMSG_LENGTH_MAX];
};

// A warning stands for damaged data, which is refused, too.
void fail(j_common_ptr info) {
  auto *failure = reinterpret_cast<Failure *>(info->err);
  info->err->format_message(info, failure->message);
  longjmp(failure->back, 1);
}

void fail_on_warning(j_common_ptr info, int level) {
  if (level < 0) fail(info);
}

int find_orientation(const jpeg_marker_struct *marker) {
  for (; marker; marker = marker->next) {
    const auto *data = reinterpret_cast<const char *>(marker->data);
    if (marker->data_length > EXIF.size() && EXIF.compare(0, EXIF.size(), data, EXIF.size()) == 0)
      return read_orientation(marker->data + EXIF.size(), marker->data_length - EXIF.size());
  }
  return 1;
}

// libjpeg reports errors by longjmp, which must not skip the destructor of a local variable: those are the caller's.
bool decode(jpeg_decompress_struct &info, Failure &failure, const std::string &content, Image &image, int &orientation) {
  if (setjmp(failure.back)) return false;
  jpeg_create_decompress(&info);
  jpeg_save_markers(&info, APP1, 0xFFFF);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char *>(content.data()), content.size());
  jpeg_read_header(&info, TRUE);
  if (double(info.image_width) * info.image_height > MAX_PIXELS) {
    std::snprintf(failure.message, sizeof failure.message, "more than 64 megapixels, the limit");
    return false;
  }
  info.out_color_space = info.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(&info);
  image = Image(int(info.output_width), int(info.output_height), info.output_components);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = image.row(int(info.output_scanline));
    jpeg_read_scanlines(&info, &row, 1);
  }
  orientation = find_orientation(info.marker_list);  // finishing frees it
  jpeg_finish_decompress(&info);
  return true;
}

}  // namespace

Decoded read_jpeg(const std::string &content) {
  Failure failure;
  jpeg_decompress_struct info{};
  info.err = jpeg_std_error(&failure.manager);
  failure.manager.error_exit = fail;
  failure.manager.emit_message = fail_on_warning;
  Image image(0, 0, 1);
  int orientation = 1;
  const bool done = decode(info, failure, content, image, orientation);
  jpeg_destroy_decompress(&info);
  if (!done) throw Error(EDGEEMO_DATA, std::string("the JPEG cannot be read: ") + failure.message);
  return {std::move(image), orientation};
}
