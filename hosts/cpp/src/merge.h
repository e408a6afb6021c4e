#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace edgeemo_host {

// A box with a score and six landmarks: x, y, width, height, score, then x and y of each landmark.
constexpr size_t COLUMNS = 17;
using Candidate = std::array<double, COLUMNS>;
using Candidates = std::vector<Candidate>;

constexpr double MAX_IOU = 0.3;  // intersection over union; above it, two boxes are one face

// A candidate of one pass over the image.
struct Seen {
  Candidate whole;
  std::array<double, 4> part;  // what of the box is inside the pass
  bool cut;                    // the box extends over an edge of the pass that is inside the image
};

// Weighted non-maximum suppression, as edgeemo/faces/merge.py does it: one candidate per face, the highest score first.
Candidates merge(const std::vector<Seen> &seen);

// Return the faces without one of each two of which the smaller lies mostly in the larger.
Candidates drop_nested(const Candidates &faces);

// Return the intersection over union of two boxes.
double compute_iou(const Candidate &first, const Candidate &second);

}  // namespace edgeemo_host
