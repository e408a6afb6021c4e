#include "card.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "errors.h"
#include "labels.h"
#include "numbers.h"
#include "sha256.h"

namespace edgeemo_host {
namespace {

using nlohmann::json;

constexpr int MAX_DEPTH = 100;
constexpr double ANY = std::numeric_limits<double>::max();
const std::set<std::string> CARD_KEYS = {"format", "sha256", "seal", "labels", "label_set", "input", "output",
                                         "temperature", "adaptation", "precision", "answers", "golden", "metrics",
                                         "licences", "data", "architecture", "target", "history"};
const std::set<std::string> INPUT_KEYS = {"size", "colour", "mean", "std", "crop_margin", "crop"};
const std::set<std::string> CROP_KEYS = {"side_eye_distances", "below_eyes", "turn_from_degrees"};
const std::set<std::string> ADAPTATION_KEYS = {"form", "matrix", "bias", "model_sha256", "penalty", "faces", "labels",
                                               "data", "content_sha256", "fitted_at", "before", "after", "p_value",
                                               "shown", "people", "answers_before"};

[[noreturn]] void fail(const std::string &message) { throw std::runtime_error(message); }

// Parse JSON; refuse a key that an object has twice, of which readers take one or the other.
json parse(const std::string &text) {
  std::vector<std::set<std::string>> keys;
  return json::parse(text, [&keys](int depth, json::parse_event_t event, json &value) {
    if (depth > MAX_DEPTH) fail("it is nested too deeply");
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      fail("it has the key " + value.dump().substr(0, 60) + " twice in one object");
    return true;
  });
}

// By UTF-16 code units, the order of RFC 8785: surrogate pairs, four bytes in UTF-8, stand before U+E000.
bool is_before(const std::string &first, const std::string &second) {
  const auto rank = [](char byte) {
    const int value = uint8_t(byte);
    return value == 0xEE || value == 0xEF ? value + 0x10 : value;
  };
  return std::lexicographical_compare(first.begin(), first.end(), second.begin(), second.end(),
                                      [&rank](char a, char b) { return rank(a) < rank(b); });
}

std::string to_canonical_json(const json &value) {
  if (value.is_number()) return to_canonical(value.get<double>());
  if (!value.is_structured()) return value.dump();
  std::string text;
  if (value.is_array()) {
    for (const auto &part : value) text += (text.empty() ? "" : ",") + to_canonical_json(part);
    return "[" + text + "]";
  }
  std::vector<std::string> names;
  for (const auto &part : value.items()) names.push_back(part.key());
  std::sort(names.begin(), names.end(), is_before);
  for (const auto &name : names)
    text += (text.empty() ? "" : ",") + json(name).dump() + ":" + to_canonical_json(value[name]);
  return "{" + text + "}";
}

const json &get(const json &object, const char *key) {
  if (!object.is_object() || !object.contains(key)) fail(std::string(key) + " is missing");
  return object[key];
}

std::string get_text(const json &object, const char *key) {
  const json &value = get(object, key);
  if (!value.is_string()) fail(std::string(key) + ": expected text, got " + value.dump().substr(0, 60));
  return value.get<std::string>();
}

double to_number(const json &value, const char *key, double least, double most) {
  const double number = value.is_number() ? value.get<double>() : NAN;
  if (!(number >= least && number <= most))
    fail(std::string(key) + ": expected a number" + (least > -ANY ? ", " + format("%g", least) + " or more" : "") +
         (most < ANY ? ", at most " + format("%g", most) : "") + ", got " + value.dump().substr(0, 60));
  return number;
}

double get_number(const json &object, const char *key, double least = -ANY, double most = ANY) {
  return to_number(get(object, key), key, least, most);
}

template <typename T>
std::vector<T> get_numbers(const json &object, const char *key, size_t count, double least = -ANY) {
  const json &list = get(object, key);
  if (!list.is_array() || list.size() != count)
    fail(std::string(key) + ": expected " + std::to_string(count) + " numbers, got " + list.dump().substr(0, 60));
  std::vector<T> numbers;
  for (const auto &one : list) numbers.push_back(T(to_number(one, key, least, ANY)));
  return numbers;
}

void check_keys(const json &object, const std::set<std::string> &known, const std::string &where) {
  if (!object.is_object()) fail(where + ": expected an object, got " + object.dump().substr(0, 60));
  for (const auto &part : object.items())
    if (!known.count(part.key())) fail(where + ": " + json(part.key()).dump().substr(0, 60) + " is not a key of a card");
}

std::vector<std::string> get_labels(const json &card) {
  const json &list = get(card, "labels");
  std::vector<std::string> labels;
  for (const auto &one : list) labels.push_back(one.is_string() ? one.get<std::string>() : "");
  const std::set<std::string> different(labels.begin(), labels.end());
  if (!list.is_array() || labels.size() < 2 || different.size() < labels.size() || different.count(""))
    fail("labels: expected a list of two or more different texts, got " + list.dump().substr(0, 60));
  const auto named = find_label_set(get_text(card, "label_set"));
  if (!named.empty() && named != labels) fail("label_set: it names another set than labels lists");
  return labels;
}

Contract get_contract(const json &card) {
  const json &input = get(card, "input");
  check_keys(input, INPUT_KEYS, "input");
  Contract contract;
  const double size = get_number(input, "size", 1, 1024);
  if (size != std::floor(size)) fail("size: expected a whole number, got " + format("%g", size));
  contract.size = int(size);
  contract.colour = get_text(input, "colour");
  if (contract.colour != "gray" && contract.colour != "rgb" && contract.colour != "gray3")
    fail("colour: expected gray, rgb or gray3, got " + contract.colour.substr(0, 60));
  contract.mean = get_numbers<float>(input, "mean", contract.channels());
  contract.std = get_numbers<float>(input, "std", contract.channels(), std::numeric_limits<float>::min());
  if (input.contains("crop")) {
    const json &crop = input["crop"];
    check_keys(crop, CROP_KEYS, "input.crop");
    contract.crop = {get_number(crop, "side_eye_distances", 1, 10), get_number(crop, "below_eyes", -2, 2),
                     get_number(crop, "turn_from_degrees", 0, 180)};
  }
  return contract;
}

void read_adaptation(const json &raw, Card &card) {
  check_keys(raw, ADAPTATION_KEYS, "adaptation");
  const size_t labels = card.labels.size();
  card.bias = get_numbers<double>(raw, "bias", labels);
  const json &matrix = get(raw, "matrix");
  if (!matrix.is_array() || matrix.size() != labels)
    fail("adaptation.matrix: expected " + std::to_string(labels) + " rows, one per label");
  for (const auto &row : matrix) card.matrix.push_back(get_numbers<double>({{"matrix", row}}, "matrix", labels));
  if (get_text(raw, "model_sha256") != card.sha256)
    fail("adaptation.model_sha256: fitted on another model, " + get_text(raw, "model_sha256").substr(0, 12));
}

bool is_overflow_safe(const json &precision) {
  if (precision.contains("overflow")) {
    const json &safe = get(precision["overflow"], "safe");
    if (safe.is_boolean() && safe.get<bool>()) return true;
  }
  const auto requested = precision.contains("requested") ? get_text(precision, "requested") : "";
  return requested == "float32" || requested == "float16";
}

Card read_card(const json &raw) {
  const json &number = get(raw, "format");
  if (!number.is_number_integer() || number != 2)
    fail("it has the format " + number.dump().substr(0, 60) + "; this host reads format 2");
  check_keys(raw, CARD_KEYS, "card");
  const auto seal = get_text(raw, "seal");
  json content = raw;
  content.erase("seal");
  if (seal != compute_sha256(to_canonical_json(content)))
    fail("it was changed after it was written: its seal is not that of its content");
  Card card;
  card.sha256 = get_text(raw, "sha256");
  card.labels = get_labels(raw);
  card.input = get_contract(raw);
  if (get_text(raw, "output") != "logits") fail("output: expected logits, got " + get_text(raw, "output").substr(0, 60));
  card.temperature = get_number(raw, "temperature", 0.01, 100);
  if (raw.contains("adaptation")) read_adaptation(raw["adaptation"], card);
  if (raw.contains("answers")) card.least_probability = get_number(raw["answers"], "least_probability", 0, 1);
  const json &precision = get(raw, "precision");
  if (!precision.is_object()) fail("precision: expected an object");
  card.overflow_safe = is_overflow_safe(precision);
  return card;
}

DetectorCard read_detector_card(const json &raw) {
  if (get_text(raw, "family") != "blazeface")
    fail("this host decodes detectors of the family blazeface, got " + get_text(raw, "family").substr(0, 60));
  const json &box = get(raw, "box");
  return {get_text(raw, "sha256"),
          int(get_number(raw, "input_size", 192, 192)),
          get_number(raw, "threshold", 0.001, 0.999),
          get_number(raw, "smallest_face", 0.001, 1),
          get(raw, "half_pass") == json(true),
          {get_number(box, "side_eye_distances", 0.001), get_number(box, "below_eyes")}};
}

// What a damaged file holds may be cut within a character, or be no text.
Error make_error(const std::string &path, std::string reason) {
  std::replace_if(reason.begin(), reason.end(), [](char one) { return static_cast<signed char>(one) < 0x20 || one == 0x7F; }, '?');
  return Error(EDGEEMO_INTEGRITY, path + " is not a card: " + reason);
}

template <typename Read>
auto parse_with(Read read, const std::string &text, const std::string &path) {
  try {
    return read(parse(text));
  } catch (const std::runtime_error &error) {
    throw make_error(path, error.what());
  } catch (const json::exception &error) {
    throw make_error(path, error.what());
  }
}

}  // namespace

std::string read_file(const std::string &path, size_t most) {
  struct stat about;
  if (stat(path.c_str(), &about) != 0)
    throw Error(EDGEEMO_INTEGRITY, path + " cannot be read: " + std::strerror(errno));
  if (!S_ISREG(about.st_mode)) throw Error(EDGEEMO_INTEGRITY, path + " is not a regular file");
  if (size_t(about.st_size) > most)
    throw Error(EDGEEMO_INTEGRITY, path + " has " + std::to_string(about.st_size) + " bytes; expected at most " +
                                       std::to_string(most));
  std::string content(size_t(about.st_size), '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(&content[0], std::streamsize(content.size())))
    throw Error(EDGEEMO_INTEGRITY, path + " cannot be read: " + std::strerror(errno));
  return content;
}

Card parse_card(const std::string &text, const std::string &path) { return parse_with(read_card, text, path); }

DetectorCard parse_detector_card(const std::string &text, const std::string &path) {
  return parse_with(read_detector_card, text, path);
}

}  // namespace edgeemo_host
