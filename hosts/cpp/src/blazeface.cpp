#include "blazeface.h"

#include <cmath>

#include "errors.h"

namespace edgeemo_host {
namespace {

constexpr int STRIDE = 4;  // pixels; one anchor in the centre of each cell
constexpr int CELLS = CANVAS / STRIDE;
constexpr size_t ANCHORS = size_t(CELLS) * CELLS;
constexpr size_t NUMBERS = 16;  // of an anchor: centre, size and landmarks, relative to it

std::vector<float> to_batch(const Image &canvas) {
  std::vector<float> batch;
  batch.reserve(canvas.pixels.size());
  for (size_t channel = 0; channel < 3; ++channel)
    for (size_t at = channel; at < canvas.pixels.size(); at += 3)
      batch.push_back(float(canvas.pixels[at]) * float(2.0 / 255) - 1);
  return batch;
}

Candidate decode(size_t anchor, const float *raw, float logit) {
  const double x = (double(anchor % CELLS) + 0.5) * STRIDE, y = (double(anchor / CELLS) + 0.5) * STRIDE;
  const double width = raw[2], height = raw[3];
  Candidate found = {raw[0] + x - width / 2, raw[1] + y - height / 2, width, height, 1 / (1 + std::exp(-double(logit)))};
  for (size_t k = 4; k < NUMBERS; ++k) found[k + 1] = raw[k] + (k % 2 ? y : x);
  return found;
}

}  // namespace

Candidates find_candidates(const Session &network, const Image &canvas, double least) {
  std::vector<float> batch = to_batch(canvas);
  const auto outputs = network.run({1, 3, CANVAS, CANVAS}, batch, {"boxes", "scores"});
  const auto &boxes = outputs[0].values, &scores = outputs[1].values;
  if (boxes.size() != ANCHORS * NUMBERS || scores.size() != ANCHORS)
    throw Error(EDGEEMO_INTEGRITY, "the detector returned outputs of another size than BlazeFace full range");
  const auto lowest = float(std::log(least / (1 - least)));
  Candidates found;
  for (size_t anchor = 0; anchor < ANCHORS; ++anchor)
    if (scores[anchor] >= lowest) found.push_back(decode(anchor, &boxes[anchor * NUMBERS], scores[anchor]));
  return found;
}

}  // namespace edgeemo_host
