#pragma once

#include <array>
#include <string>
#include <vector>

#include "card.h"
#include "pixels.h"

namespace edgeemo_host {

struct Point {
  double x, y;
};

// A face as a detector found it, in pixels of the image; the first two landmarks are the person's right and left eye.
struct Detection {
  std::array<double, 4> box;  // x, y, width, height
  double score;
  std::vector<Point> landmarks;
};

// Where a crop lies: centre and side in pixels, and the tilt in degrees that turning removes.
struct Square {
  Point centre;
  double side, degrees;
};

// Return the tilt of the eyes in degrees, -180 to 180; positive: the left one lies lower in the image.
double compute_tilt(const Point &right, const Point &left);

// Return the square around a face, as docs/card.md defines it. framing: of the detector's boxes; NULL: not known.
// Raises Error for a face without a size.
Square place(const Detection &face, const CropRule &rule, const Framing *framing);

// Return why a square cannot be cut out of an image, or an empty text if it can.
std::string find_fault(const Square &square, int width, int height);

// Return the face as the contract defines it, of `size` x `size` px. scale: of the square's side; 1 is the contract's.
// The square must have no fault.
Image crop(const View &image, Square square, const Contract &contract, double scale = 1);

// Convert and resize a square to the colour and size of the contract; gray3 stays in one channel.
Image to_pixels(const Image &square, const Contract &contract);

// Append the normalised pixels of one crop, channels x size x size.
void append_input(const Image &pixels, const Contract &contract, std::vector<float> &batch);

}  // namespace edgeemo_host
