#include "edgeemo.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <numeric>

#include "card.h"
#include "crop.h"
#include "errors.h"
#include "flags.h"
#include "labels.h"
#include "runtime.h"
#include "search.h"
#include "sha256.h"

using namespace edgeemo_host;

namespace {

constexpr size_t MAX_MODEL = size_t(2) << 30, MAX_CARD = 4 << 20;  // bytes
constexpr double LOWEST_THRESHOLD = 0.001;                         // below it every anchor is a face
constexpr size_t BATCH = 64;                                       // crops run at once, which limits the memory
const std::vector<double> AUGMENTED = {0.9, 1.0, 1.2};             // sides of the crops whose probabilities are averaged

thread_local std::string last_error;

using Labels = std::shared_ptr<const std::vector<std::string>>;

// A result with all that its pointers point to.
struct Answer : edgeemo_result {
  std::vector<edgeemo_face> all_faces;
  std::vector<std::vector<double>> rows;
  Labels names;
  std::vector<const char *> name_pointers, reason_pointers;
  std::vector<std::string> reasons;

  void finish() {
    for (size_t k = 0; k < rows.size(); ++k) all_faces[k].probabilities = rows[k].data();
    for (const auto &name : *names) name_pointers.push_back(name.c_str());
    for (const auto &reason : reasons) reason_pointers.push_back(reason.c_str());
    face_count = int(all_faces.size()), faces = all_faces.data();
    label_count = int(names->size()), labels = name_pointers.data();
    left_out_count = int(reasons.size()), left_out = reason_pointers.data();
  }
};

bool is_x86() {
#if defined(__x86_64__) || defined(__i386__)
  return true;
#else
  return false;
#endif
}

template <typename Call>
edgeemo_status guard(Call call) {
  try {
    call();
    return EDGEEMO_OK;
  } catch (const Error &error) {
    last_error = error.what();
    return error.status;
  } catch (const std::bad_alloc &) {
    last_error = "not enough memory";
    return EDGEEMO_MACHINE;
  } catch (const std::exception &error) {
    last_error = error.what();
    return EDGEEMO_MACHINE;
  }
}

}  // namespace

struct edgeemo {
  edgeemo(const std::string &file, const edgeemo_options &options);
  void predict(const View &image, Answer &answer) const;
  void find(const View &image, Answer &answer) const;
  Labels names() const { return names_; }

 private:
  void open_session(const std::shared_ptr<Runtime> &runtime, int threads);
  void check_shapes() const;
  std::vector<std::vector<double>> compute_probabilities(const std::vector<float> &batch) const;
  std::vector<double> compute_row(const float *logits) const;
  void describe(const std::vector<double> &row, edgeemo_face &face) const;

  std::string file_;
  Card card_;
  Reported reported_;
  Labels names_;
  std::vector<double> scales_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Detector> detector_;
  std::string output_;
};

edgeemo::edgeemo(const std::string &file, const edgeemo_options &options)
    : file_(file), scales_(options.one_crop ? std::vector<double>{1.0} : AUGMENTED) {
  if (options.threads < 0 || options.threads > 1024)
    throw Error(EDGEEMO_USAGE, "expected 1 thread or more, got " + std::to_string(options.threads));
  if (options.threshold != 0 && !(options.threshold >= LOWEST_THRESHOLD && options.threshold < 1))
    throw Error(EDGEEMO_USAGE, "expected a threshold from 0.001 to below 1, got " + std::to_string(options.threshold));
  if (options.search < EDGEEMO_BY_SIZE || options.search > EDGEEMO_MANY)
    throw Error(EDGEEMO_USAGE, "expected the search EDGEEMO_BY_SIZE, EDGEEMO_FEW or EDGEEMO_MANY");
  const int threads = std::max(1, options.threads);
  const std::string card = file + ".json";
  card_ = parse_card(read_file(card, MAX_CARD), card);
  reported_ = merge_labels(card_.labels, options.label_set ? options.label_set : "");
  names_ = std::make_shared<std::vector<std::string>>(reported_.labels);
  const auto runtime = std::make_shared<Runtime>(options.onnxruntime ? options.onnxruntime : "");
  open_session(runtime, threads);
  if (options.detector)
    detector_ = std::make_unique<Detector>(runtime, options.detector, threads, options.search, options.threshold);
}

void edgeemo::open_session(const std::shared_ptr<Runtime> &runtime, int threads) {
  const std::string content = read_file(file_, MAX_MODEL), found = compute_sha256(content);
  if (found != card_.sha256)
    throw Error(EDGEEMO_INTEGRITY, file_ + " is not the file that its card describes: card " +
                                       card_.sha256.substr(0, 12) + "…, file " + found.substr(0, 12) +
                                       "…; copy both files again");
  session_ = std::make_unique<Session>(runtime, content, file_, threads, is_x86() && !card_.overflow_safe);
  check_shapes();
  output_ = session_->get_name(false);
}

void edgeemo::check_shapes() const {
  const auto input = session_->get_shape(true), output = session_->get_shape(false);
  const int64_t size = card_.input.size, labels = int64_t(card_.labels.size());
  const bool fits = input.size() == 4 && input[0] < 0 && input[1] == card_.input.channels() && input[2] == size &&
                    input[3] == size && output.size() == 2 && output[0] < 0 && output[1] == labels;
  if (!fits)
    throw Error(EDGEEMO_INTEGRITY, file_ + " and its card do not agree: expected an input (N, " +
                                       std::to_string(card_.input.channels()) + ", " + std::to_string(size) + ", " +
                                       std::to_string(size) + ") and an output (N, " + std::to_string(labels) + ")");
}

std::vector<double> edgeemo::compute_row(const float *logits) const {
  const size_t labels = card_.labels.size();
  std::vector<double> powers(logits, logits + labels);
  for (size_t k = 0; k < card_.matrix.size(); ++k)
    powers[k] = std::inner_product(logits, logits + labels, card_.matrix[k].begin(), 0.0) + card_.bias[k];
  for (auto &one : powers) one /= card_.temperature;
  const double highest = *std::max_element(powers.begin(), powers.end());
  for (auto &one : powers) one = std::exp(one - highest);
  const double total = std::accumulate(powers.begin(), powers.end(), 0.0);
  std::vector<double> merged(reported_.labels.size());
  for (size_t k = 0; k < labels; ++k) merged[size_t(reported_.positions[k])] += powers[k] / total;
  return merged;
}

std::vector<std::vector<double>> edgeemo::compute_probabilities(const std::vector<float> &batch) const {
  const size_t face = size_t(card_.input.channels()) * card_.input.size * card_.input.size;
  const size_t labels = card_.labels.size();
  std::vector<std::vector<double>> rows;
  for (size_t first = 0; first < batch.size(); first += BATCH * face) {
    std::vector<float> part(batch.begin() + ptrdiff_t(first),
                            batch.begin() + ptrdiff_t(std::min(batch.size(), first + BATCH * face)));
    const auto count = int64_t(part.size() / face);
    const auto logits =
        session_->run({count, card_.input.channels(), card_.input.size, card_.input.size}, part, {output_})[0].values;
    if (logits.size() != size_t(count) * labels || !std::all_of(logits.begin(), logits.end(), [](float one) {
          return std::isfinite(one);
        }))
      throw Error(EDGEEMO_INTEGRITY, file_ + " did not return finite logits, one per label and face");
    for (size_t k = 0; k < size_t(count); ++k) rows.push_back(compute_row(&logits[k * labels]));
  }
  return rows;
}

void edgeemo::describe(const std::vector<double> &row, edgeemo_face &face) const {
  const auto highest = std::max_element(row.begin(), row.end());
  face.label = int(highest - row.begin());
  face.unsure = card_.least_probability ? *highest < *card_.least_probability : -1;
}

void edgeemo::predict(const View &image, Answer &answer) const {
  std::vector<float> batch;
  append_input(to_pixels(take_centre(image), card_.input), card_.input, batch);
  answer.rows = compute_probabilities(batch);
  const int side = std::min(image.width, image.height);
  edgeemo_face face{};
  const double box[] = {double((image.width - side) / 2), double((image.height - side) / 2), double(side), double(side)};
  std::copy(box, box + 4, face.box);
  face.score = std::numeric_limits<double>::quiet_NaN();
  describe(answer.rows[0], face);
  answer.all_faces.push_back(face);
}

void edgeemo::find(const View &image, Answer &answer) const {
  if (!detector_) throw Error(EDGEEMO_USAGE, "the model was opened without a detector: set options.detector");
  std::vector<float> batch;
  for (const auto &found : detector_->detect(image)) {
    const Square square = place(found, card_.input.crop, &detector_->framing());
    const std::string fault = find_fault(square, image.width, image.height);
    if (!fault.empty()) {
      answer.reasons.push_back(fault);
      continue;
    }
    edgeemo_face face{};
    std::copy(found.box.begin(), found.box.end(), face.box);
    face.score = found.score;
    face.landmark_count = int(found.landmarks.size());
    for (size_t k = 0; k < found.landmarks.size(); ++k)
      face.landmarks[k][0] = found.landmarks[k].x, face.landmarks[k][1] = found.landmarks[k].y;
    face.flags = find_flags(found, square, image.width, image.height, card_.input);
    answer.all_faces.push_back(face);
    for (const double scale : scales_) append_input(crop(image, square, card_.input, scale), card_.input, batch);
  }
  const auto views = compute_probabilities(batch);
  for (size_t k = 0; k < answer.all_faces.size(); ++k) {
    std::vector<double> mean(reported_.labels.size());
    for (size_t view = 0; view < scales_.size(); ++view)
      for (size_t label = 0; label < mean.size(); ++label) mean[label] += views[k * scales_.size() + view][label];
    for (auto &one : mean) one /= double(scales_.size());
    describe(mean, answer.all_faces[k]);
    answer.rows.push_back(mean);
  }
}

namespace {

template <typename Fill>
edgeemo_status answer_with(const edgeemo *model, const edgeemo_frame *frame, edgeemo_result **result,
                           Fill fill) {
  return guard([&] {
    if (!result) throw Error(EDGEEMO_USAGE, "expected a place for the result, got NULL");
    *result = nullptr;
    if (!model) throw Error(EDGEEMO_USAGE, "expected an open model, got NULL");
    check_frame(frame);
    auto answer = std::make_unique<Answer>();
    answer->names = model->names();
    fill(View(*frame), *answer);
    answer->finish();
    *result = answer.release();
  });
}

}  // namespace

extern "C" {

edgeemo_status edgeemo_open(const char *model_file, const edgeemo_options *options, edgeemo **model) {
  return guard([&] {
    if (!model) throw Error(EDGEEMO_USAGE, "expected a place for the model, got NULL");
    *model = nullptr;
    if (!model_file) throw Error(EDGEEMO_USAGE, "expected the path of a model file, got NULL");
    *model = new edgeemo(model_file, options ? *options : edgeemo_options{});
  });
}

edgeemo_status edgeemo_faces(const edgeemo *model, const edgeemo_frame *frame, edgeemo_result **result) {
  return answer_with(model, frame, result, [&](const View &image, Answer &answer) { model->find(image, answer); });
}

edgeemo_status edgeemo_predict(const edgeemo *model, const edgeemo_frame *frame, edgeemo_result **result) {
  return answer_with(model, frame, result, [&](const View &image, Answer &answer) { model->predict(image, answer); });
}

void edgeemo_free(edgeemo_result *result) { delete static_cast<Answer *>(result); }

void edgeemo_close(edgeemo *model) { delete model; }

const char *edgeemo_error(void) { return last_error.c_str(); }

}  // extern "C"
