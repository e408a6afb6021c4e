#include "search.h"

#include <algorithm>
#include <cmath>

#include "blazeface.h"
#include "errors.h"
#include "sha256.h"

namespace edgeemo_host {
namespace {

constexpr double DOUBTFUL = 0.5;   // part of the threshold; boxes between the two are looked at once more, from closer
constexpr double CERTAIN = 0.7;    // score; boxes between the threshold and it are looked at once more, too
constexpr double CONFIRMED = 0.9;  // part of the threshold that the mean of their two scores must reach
constexpr int MOST_DOUBTFUL = 4;
constexpr int MOST_UNCERTAIN = 8;
constexpr double ZOOM = 3;  // sides of a doubtful box in the part that is looked at once more
constexpr size_t MAX_DETECTOR = 64 << 20, MAX_DETECTOR_CARD = 1 << 16;  // bytes

std::string find_card(const std::string &path) {
  const size_t dot = path.rfind(".onnx");
  if (dot == std::string::npos || dot + 5 != path.size())
    throw Error(EDGEEMO_USAGE, path + ": expected a detector's file that ends with .onnx");
  return path.substr(0, dot) + ".json";
}

// Return the pass around a doubtful box, inside the image.
Pass zoom(const Candidate &face, int width, int height) {
  const double side = ZOOM * std::max(face[2], face[3]), x = face[0] + face[2] / 2, y = face[1] + face[3] / 2;
  const int left = int(std::max(0.0, std::floor(x - side / 2))), top = int(std::max(0.0, std::floor(y - side / 2)));
  const int right = int(std::min(double(width), std::ceil(x + side / 2)));
  const int bottom = int(std::min(double(height), std::ceil(y + side / 2)));
  return {std::min(left, width - 1), std::min(top, height - 1), std::max(1, right - left), std::max(1, bottom - top)};
}

// Return the highest score of what was seen where a face is, 0 if nothing was.
double find_score(const Candidate &face, const Candidates &seen) {
  double score = 0;
  for (const auto &one : seen)
    if (compute_iou(face, one) > MAX_IOU) score = std::max(score, one[4]);
  return score;
}

Detection to_detection(const Candidate &face) {
  for (const double value : face)
    if (!std::isfinite(value)) throw Error(EDGEEMO_INTEGRITY, "the detector returned a number that is not finite");
  if (face[2] <= 0 || face[3] <= 0) throw Error(EDGEEMO_INTEGRITY, "the detector returned a box without a size");
  Detection found{{face[0], face[1], face[2], face[3]}, face[4], {}};
  for (size_t k = 5; k < COLUMNS; k += 2) found.landmarks.push_back({face[k], face[k + 1]});
  return found;
}

}  // namespace

Detector::Detector(std::shared_ptr<Runtime> runtime, const std::string &path, int threads, edgeemo_search search,
                   double threshold)
    : search_(search) {
  const std::string card = find_card(path), content = read_file(path, MAX_DETECTOR);
  card_ = parse_detector_card(read_file(card, MAX_DETECTOR_CARD), card);
  const std::string found = compute_sha256(content);
  if (found != card_.sha256)
    throw Error(EDGEEMO_INTEGRITY, path + " is not the file that its card describes: card " +
                                       card_.sha256.substr(0, 12) + "…, file " + found.substr(0, 12) + "…");
  threshold_ = threshold > 0 ? threshold : card_.threshold;
  network_ = std::make_unique<Session>(std::move(runtime), content, path, threads, false);
}

std::vector<Detection> Detector::detect(const View &image) const {
  const auto passes = plan_passes(image.width, image.height, card_.smallest_face, card_.half_pass, search_);
  std::vector<Detection> found;
  for (const auto &face : drop_nested(look_closer(image, look(image, passes)))) found.push_back(to_detection(face));
  return found;
}

Candidates Detector::look(const View &image, const std::vector<Pass> &passes) const {
  std::vector<Seen> seen;
  for (const auto &pass : passes) {
    const Canvas canvas = draw_canvas(image, pass, card_.input_size);
    for (const auto &one : find_candidates(*network_, canvas.pixels, threshold_ * DOUBTFUL))
      seen.push_back(to_image(one, canvas, pass, image.width, image.height));
  }
  return merge(seen);
}

// Return the faces that count: those with a score that is not certain are looked at once more.
Candidates Detector::look_closer(const View &image, const Candidates &faces) const {
  std::vector<size_t> uncertain, doubtful;
  for (size_t k = 0; k < faces.size(); ++k) {
    const bool is_sure = faces[k][4] >= threshold_;
    if (is_sure && faces[k][4] < CERTAIN && uncertain.size() < MOST_UNCERTAIN) uncertain.push_back(k);
    if (!is_sure && doubtful.size() < MOST_DOUBTFUL) doubtful.push_back(k);
  }
  std::vector<Pass> closer;
  for (const auto *group : {&uncertain, &doubtful})
    for (const size_t k : *group) closer.push_back(zoom(faces[k], image.width, image.height));
  const Candidates seen = closer.empty() ? Candidates() : look(image, closer);
  std::vector<Seen> found;
  for (size_t k = 0; k < faces.size(); ++k) {
    bool counts = faces[k][4] >= threshold_;
    if (std::count(uncertain.begin(), uncertain.end(), k))
      counts = (faces[k][4] + find_score(faces[k], seen)) / 2 >= threshold_ * CONFIRMED;
    if (counts) found.push_back({faces[k], {}, false});
  }
  for (const auto &one : seen)
    if (one[4] >= threshold_) found.push_back({one, {}, false});
  if (!closer.empty()) return merge(found);
  Candidates certain;
  for (const auto &one : found) certain.push_back(one.whole);
  return certain;
}

}  // namespace edgeemo_host
