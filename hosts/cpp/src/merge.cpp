#include "merge.h"

#include <algorithm>

namespace edgeemo_host {
namespace {

constexpr double MAX_COVERED = 0.5;  // part of a box that lies in another one, where a tile cuts either
constexpr double MAX_NESTED = 0.7;   // part of a box that lies in a larger one
constexpr double CLEARLY = 0.2;      // of a score
constexpr double TINY = 1e-9;        // instead of an area of 0

using Overlap = double (*)(const Candidate &, const Candidate &);

template <typename Area>
double compute_area(const Area &box) {
  return box[2] * box[3];
}

template <typename First>
double intersect(const First &first, const Candidate &second) {
  double area = 1;
  for (int axis = 0; axis < 2; ++axis) {
    const double low = std::max(first[axis], second[axis]);
    const double high = std::min(first[axis] + first[2 + axis], second[axis] + second[2 + axis]);
    area *= std::max(high - low, 0.0);
  }
  return area;
}

double compute_cover(const Candidate &first, const Candidate &second) {
  return intersect(first, second) / std::max(std::min(compute_area(first), compute_area(second)), TINY);
}

void sort_by_score(Candidates &faces) {
  std::stable_sort(faces.begin(), faces.end(), [](const auto &a, const auto &b) { return a[4] > b[4]; });
}

// Return the mean of a group, weighted by score, with the highest score, that of the first.
Candidate average(const Candidates &group) {
  Candidate mean{};
  double total = 0;
  for (const auto &one : group) {
    total += one[4];
    for (size_t k = 0; k < COLUMNS; ++k) mean[k] += one[4] * one[k];
  }
  for (auto &value : mean) value /= total;
  mean[4] = group.front()[4];
  return mean;
}

// Return one face per group of candidates that overlap by more than `most` with the group's highest score.
Candidates suppress(Candidates left, Overlap overlap, double most) {
  sort_by_score(left);
  Candidates faces;
  while (!left.empty()) {
    Candidates group = {left.front()}, rest;
    for (auto one = left.begin() + 1; one != left.end(); ++one)
      (overlap(left.front(), *one) > most ? group : rest).push_back(*one);
    faces.push_back(average(group));
    left = std::move(rest);
  }
  return faces;
}

bool is_covered(const std::array<double, 4> &part, const Candidates &whole) {
  return std::any_of(whole.begin(), whole.end(), [&part](const Candidate &one) {
    return intersect(part, one) / std::max(compute_area(part), TINY) > MAX_COVERED;
  });
}

}  // namespace

double compute_iou(const Candidate &first, const Candidate &second) {
  const double shared = intersect(first, second);
  return shared / std::max(compute_area(first) + compute_area(second) - shared, TINY);
}

Candidates merge(const std::vector<Seen> &seen) {
  Candidates complete, rest;
  for (const auto &one : seen)
    if (!one.cut) complete.push_back(one.whole);
  Candidates faces = suppress(complete, compute_iou, MAX_IOU);
  for (const auto &one : seen)
    if (one.cut && !is_covered(one.part, faces)) rest.push_back(one.whole);
  const Candidates cut = suppress(rest, compute_cover, MAX_COVERED);
  faces.insert(faces.end(), cut.begin(), cut.end());
  sort_by_score(faces);
  return faces;
}

Candidates drop_nested(const Candidates &faces) {
  std::vector<bool> dropped(faces.size());
  for (size_t small = 0; small < faces.size(); ++small)
    for (size_t large = 0; large < faces.size(); ++large) {
      if (compute_area(faces[small]) >= compute_area(faces[large])) continue;
      if (compute_cover(faces[small], faces[large]) <= MAX_NESTED) continue;
      dropped[faces[small][4] > faces[large][4] + CLEARLY ? large : small] = true;
    }
  Candidates kept;
  for (size_t k = 0; k < faces.size(); ++k)
    if (!dropped[k]) kept.push_back(faces[k]);
  return kept;
}

}  // namespace edgeemo_host
