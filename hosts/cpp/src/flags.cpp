#include "flags.h"

#include <algorithm>
#include <cmath>

namespace edgeemo_host {
namespace {

constexpr double PI = 3.14159265358979323846;
constexpr double SMALL = 2.0 / 3;           // of the side of the input, or of MEASURED_SIDE if that is less
constexpr int MEASURED_SIDE = 48;           // pixels
constexpr double MAX_TILT = 40;             // degrees of the line between the eyes
constexpr double MAX_SKEW = 10;             // degrees between the axes of eyes and mouth
constexpr double CLIPPED = 0.25;            // share of the square outside the image
constexpr double CLIPPED_BELOW = 0.3;       // the same of its lower half
constexpr int GRID = 32;                    // samples a side
constexpr size_t MOUTH = 3;                 // the landmark in the middle of the mouth

bool is_tilted(const Detection &face) {
  if (face.landmarks.size() < 2) return false;
  const Point &right = face.landmarks[0], &left = face.landmarks[1];
  const double tilt = compute_tilt(right, left);
  if (std::abs(tilt) > MAX_TILT) return true;
  if (face.landmarks.size() <= MOUTH) return false;
  const Point eyes = {(right.x + left.x) / 2, (right.y + left.y) / 2}, mouth = face.landmarks[MOUTH];
  const double axis = std::atan2(eyes.x - mouth.x, mouth.y - eyes.y) * (180 / PI);
  double turn = std::fmod(axis - tilt + 180, 360);
  if (turn < 0) turn += 360;
  return std::abs(turn - 180) > MAX_SKEW;
}

bool is_clipped(const Square &square, int width, int height) {
  const double cosine = std::cos(square.degrees * (PI / 180)), sine = std::sin(square.degrees * (PI / 180));
  int outside = 0, below = 0;
  for (int j = 0; j < GRID; ++j)
    for (int i = 0; i < GRID; ++i) {
      const double across = ((i + 0.5) / GRID - 0.5) * square.side, down = ((j + 0.5) / GRID - 0.5) * square.side;
      const double x = square.centre.x + across * cosine - down * sine;
      const double y = square.centre.y + across * sine + down * cosine;
      const bool is_outside = !(x >= 0 && x < width && y >= 0 && y < height);
      outside += is_outside;
      below += is_outside && j >= GRID / 2;
    }
  return outside / double(GRID * GRID) > CLIPPED || below / double(GRID * GRID / 2) > CLIPPED_BELOW;
}

}  // namespace

unsigned find_flags(const Detection &face, const Square &square, int width, int height, const Contract &contract) {
  return (square.side < SMALL * std::min(contract.size, MEASURED_SIDE) ? EDGEEMO_SMALL : 0) |
         (is_tilted(face) ? EDGEEMO_TILTED : 0) | (is_clipped(square, width, height) ? EDGEEMO_CLIPPED : 0);
}

}  // namespace edgeemo_host
