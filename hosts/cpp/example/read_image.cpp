#include "read_image.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "errors.h"

using edgeemo_host::Error;
using edgeemo_host::Image;

namespace {

// Return the image turned upright; by orientation, whether it is mirrored, and turned.
Image turn_upright(const Image &image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  const bool swapped = orientation >= 5;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image upright(swapped ? image.height : image.width, swapped ? image.width : image.height, image.channels);
  for (int y = 0; y < upright.height; ++y)
    for (int x = 0; x < upright.width; ++x) {
      const int column = swapped ? y : x, row = swapped ? x : y;
      const uint8_t *source = image.row(from_bottom ? image.height - 1 - row : row) +
                              (from_right ? image.width - 1 - column : column) * image.channels;
      std::copy(source, source + image.channels, upright.row(y) + x * image.channels);
    }
  return upright;
}

}  // namespace

int read_orientation(const uint8_t *data, size_t size) {
  if (size < 8) return 1;
  const bool little = data[0] == 'I';
  const auto read = [&](size_t at, size_t bytes) {
    size_t value = 0;
    for (size_t k = 0; k < bytes; ++k) value = value << 8 | data[at + (little ? bytes - 1 - k : k)];
    return value;
  };
  const size_t directory = read(4, 4);
  if (directory > size - 2) return 1;
  const size_t entries = read(directory, 2);
  for (size_t at = directory + 2, k = 0; k < entries && at + 12 <= size; ++k, at += 12)
    if (read(at, 2) == 0x0112) {
      const size_t value = read(at + 8, 2);
      return value >= 1 && value <= 8 ? int(value) : 1;
    }
  return 1;
}

Image read_image(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (!file || !(content << file.rdbuf())) throw Error(EDGEEMO_DATA, path + " cannot be read; expected a PNG or JPEG");
  const std::string bytes = content.str();
  try {
    const bool is_png = bytes.rfind("\x89PNG", 0) == 0;
    if (!is_png && bytes.rfind("\xff\xd8", 0) != 0) throw Error(EDGEEMO_DATA, "expected a PNG or JPEG");
    const Decoded decoded = is_png ? read_png(bytes) : read_jpeg(bytes);
    return turn_upright(decoded.image, decoded.orientation);
  } catch (const Error &error) {
    throw Error(error.status, path + ": " + error.what());
  }
}
