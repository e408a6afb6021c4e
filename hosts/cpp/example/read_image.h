#pragma once

#include <string>

#include "pixels.h"

constexpr double MAX_PIXELS = 9280.0 * 6944;  // a 64-megapixel phone photo

// Read a PNG or JPEG as an upright gray or RGB image of 8 bits, as edgeemo reads it in Python: turned by its EXIF
// orientation, transparent pixels blended with mid-grey. Raises Error for other files, damaged ones, and images over 64
// megapixels.
edgeemo_host::Image read_image(const std::string &path);

// Return the EXIF orientation, 1 to 8, of a TIFF header and directory; 1 if there is none or it cannot be read.
int read_orientation(const uint8_t *data, size_t size);

// A decoded image and its orientation.
struct Decoded {
  edgeemo_host::Image image;
  int orientation;
};

Decoded read_png(const std::string &content);
Decoded read_jpeg(const std::string &content);
