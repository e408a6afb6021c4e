#include "crop.h"

#include <algorithm>
#include <cmath>

#include "errors.h"
#include "numbers.h"
#include "resize.h"

namespace edgeemo_host {
namespace {

constexpr double PI = 3.14159265358979323846;
constexpr double MIN_EYE_SHARE = 0.6;  // of the eye distance that the box implies; below, the head is turned sideways

double to_radians(double degrees) { return degrees * (PI / 180); }

int to_floor(double value) { return int(std::floor(value)); }

// Where the corner of a square of whole pixels lies.
int find_corner(double middle, int side) { return to_floor(middle - side / 2.0 + 0.5); }

Image cut(const View &image, const Square &square) {
  const int side = to_floor(square.side + 0.5);
  return take_square(image, find_corner(square.centre.x, side), find_corner(square.centre.y, side), side);
}

// Sample one channel between the centres of four pixels; x, y count from the corner of the first pixel.
uint8_t sample(const Image &image, double x, double y, int channel) {
  x -= 0.5, y -= 0.5;
  const int column = to_floor(x), row = to_floor(y);
  const double right = x - column, down = y - row;
  const auto level = [&](int at_x, int at_y) -> float {
    return image.row(std::clamp(at_y, 0, image.height - 1))[std::clamp(at_x, 0, image.width - 1) * image.channels +
                                                            channel];
  };
  const auto mix = [&](int at_y) {
    const float first = level(column, at_y);
    return first + (level(column + 1, at_y) - first) * right;
  };
  const double upper = mix(row), lower = mix(row + 1);
  return uint8_t(std::floor(float(upper + (lower - upper) * down) + 0.5f));
}

// Sample a square upright, with a side that is a multiple of `size`, so that resizing it averages whole samples.
Image turn(const View &image, const Square &square, int size) {
  const int side = size * std::max(1, int(std::ceil(square.side / size)));
  const int reach = int(std::ceil(square.side * std::sqrt(2.0) / 2)) + 2;
  const int left = to_floor(square.centre.x) - reach, top = to_floor(square.centre.y) - reach;
  const Image around = take_square(image, left, top, 2 * reach + 1);
  const double step = square.side / side, half = side / 2.0;
  const double across = step * std::cos(to_radians(square.degrees)), down = step * std::sin(to_radians(square.degrees));
  const double x0 = square.centre.x - left - half * (across - down), y0 = square.centre.y - top - half * (down + across);
  Image turned(side, side, image.channels);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x)
      for (int channel = 0; channel < image.channels; ++channel)
        turned.row(y)[x * image.channels + channel] =
            sample(around, across * (x + 0.5) - down * (y + 0.5) + x0, down * (x + 0.5) + across * (y + 0.5) + y0, channel);
  return turned;
}

}  // namespace

double compute_tilt(const Point &right, const Point &left) {
  return std::atan2(left.y - right.y, left.x - right.x) * (180 / PI);
}

Square place(const Detection &face, const CropRule &rule, const Framing *framing) {
  const auto [x, y, width, height] = face.box;
  const double implied = framing ? std::max(width, height) / framing->side_eye_distances : 0;
  Point right, left;
  if (face.landmarks.size() >= 2) {
    right = face.landmarks[0], left = face.landmarks[1];
  } else {
    const double middle = x + width / 2, line = y + height / 2 - (framing ? framing->below_eyes : 0) * implied;
    right = {middle - implied / 2, line}, left = {middle + implied / 2, line};
  }
  const double distance = std::max(std::hypot(left.x - right.x, left.y - right.y), MIN_EYE_SHARE * implied);
  if (!std::isfinite(distance) || distance <= 0)
    throw Error(EDGEEMO_DATA, "expected a face with two eyes and a box with a size");
  const double tilt = compute_tilt(right, left), below = rule.below_eyes * distance;
  const Point centre = {(right.x + left.x) / 2 - below * std::sin(to_radians(tilt)),
                        (right.y + left.y) / 2 + below * std::cos(to_radians(tilt))};
  return {centre, rule.side_eye_distances * distance, std::abs(tilt) > rule.turn_from_degrees ? tilt : 0};
}

std::string find_fault(const Square &square, int width, int height) {
  const double side = std::floor(square.side + 0.5), reach = square.side / 2;
  if (!(side >= MIN_SIDE && side <= MAX_CROP))
    return "the face gives a square of " + format("%.0f", square.side) + " px; expected " + std::to_string(MIN_SIDE) +
           " to " + std::to_string(MAX_CROP);
  const auto [x, y] = square.centre;
  if (!(-reach < x && x < width + reach && -reach < y && y < height + reach))
    return "the face at " + format("%.0f", x) + ", " + format("%.0f", y) + " lies outside the image of " +
           std::to_string(width) + "x" + std::to_string(height) + " px";
  return "";
}

Image crop(const View &image, Square square, const Contract &contract, double scale) {
  if (scale != 1) square.side = std::clamp(square.side * scale, double(MIN_SIDE), double(MAX_CROP));
  return to_pixels(square.degrees != 0 ? turn(image, square, contract.size) : cut(image, square), contract);
}

Image to_pixels(const Image &square, const Contract &contract) {
  const Image converted = convert(square, contract.is_gray());
  if (converted.width == contract.size) return converted;
  return resize(converted, contract.size, contract.size, {0, 0, float(converted.width), float(converted.height)});
}

void append_input(const Image &pixels, const Contract &contract, std::vector<float> &batch) {
  for (int channel = 0; channel < contract.channels(); ++channel) {
    const size_t first = pixels.channels == 1 ? 0 : size_t(channel);
    for (size_t at = first; at < pixels.pixels.size(); at += size_t(pixels.channels))
      batch.push_back((float(pixels.pixels[at]) * float(1.0 / 255) - contract.mean[size_t(channel)]) /
                      contract.std[size_t(channel)]);
  }
}

}  // namespace edgeemo_host
