#include "print.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "numbers.h"

using edgeemo_host::round_to;
using edgeemo_host::to_python;

namespace {

constexpr int PIXELS = 2, SCORE = 4, SHARE = 6;  // decimal places

std::string escape(unsigned unit) {
  char text[8];
  std::snprintf(text, sizeof text, "\\u%04x", unit & 0xFFFF);
  return text;
}

// Return the length of the UTF-8 character at a position, with its number; 0 for bytes that are no UTF-8.
size_t decode(const std::string &text, size_t at, unsigned &point) {
  const auto byte = [&](size_t k) { return at + k < text.size() ? unsigned(uint8_t(text[at + k])) : 0u; };
  const size_t length = byte(0) < 0x80 ? 1 : byte(0) >> 5 == 6 ? 2 : byte(0) >> 4 == 14 ? 3 : byte(0) >> 3 == 30 ? 4 : 0;
  if (length <= 1) return point = byte(0), length;
  point = byte(0) & (0x7Fu >> length);
  for (size_t k = 1; k < length; ++k) {
    if (byte(k) >> 6 != 2) return 0;
    point = point << 6 | (byte(k) & 0x3F);
  }
  const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
  return point < least[length] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000) ? 0 : length;
}

// Quote text in ASCII; bytes that are no UTF-8 become lone surrogates, as in Python's file names.
std::string quote(const std::string &text) {
  const std::string plain = "\"\\\n\r\t\b\f", letters = "\"\\nrtbf";
  std::string quoted = "\"";
  for (size_t at = 0; at < text.size();) {
    unsigned point = 0;
    const size_t length = decode(text, at, point);
    const auto known = length == 1 ? plain.find(text[at]) : std::string::npos;
    if (known != std::string::npos)
      quoted += std::string("\\") + letters[known];
    else if (length == 0)
      quoted += escape(0xDC00 + unsigned(uint8_t(text[at])));
    else if (point >= 0x10000)
      quoted += escape(0xD800 + ((point - 0x10000) >> 10)) + escape(0xDC00 + ((point - 0x10000) & 0x3FF));
    else
      quoted += point >= 0x20 && point < 0x7F ? std::string(1, text[at]) : escape(point);
    at += std::max<size_t>(1, length);
  }
  return quoted + "\"";
}

template <typename List, typename Write>
std::string join(const List &list, Write write) {
  std::string text;
  for (const auto &one : list) text += (text.empty() ? "" : ", ") + write(one);
  return text;
}

std::string to_number(double value, int places) { return to_python(round_to(value, places)); }

std::string write_probabilities(const edgeemo_result &result, const edgeemo_face &face) {
  std::vector<int> order(size_t(result.label_count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&face](int a, int b) { return face.probabilities[a] > face.probabilities[b]; });
  return join(order, [&](int k) { return quote(result.labels[k]) + ": " + to_number(face.probabilities[k], SHARE); });
}

std::string write_flags(unsigned flags) {
  std::vector<std::string> names;
  if (flags & EDGEEMO_SMALL) names.push_back("small");
  if (flags & EDGEEMO_TILTED) names.push_back("tilted");
  if (flags & EDGEEMO_CLIPPED) names.push_back("clipped");
  return join(names, quote);
}

std::string write_face(const edgeemo_result &result, const edgeemo_face &face) {
  const auto write_pixels = [](double value) { return to_number(value, PIXELS); };
  const std::vector<std::vector<double>> points = [&face] {
    std::vector<std::vector<double>> list;
    for (int k = 0; k < face.landmark_count; ++k) list.push_back({face.landmarks[k][0], face.landmarks[k][1]});
    return list;
  }();
  const std::string landmarks =
      join(points, [&](const std::vector<double> &point) { return "[" + join(point, write_pixels) + "]"; });
  return "{\"box\": [" + join(std::vector<double>(face.box, face.box + 4), write_pixels) +
         "], \"score\": " + (std::isnan(face.score) ? "null" : to_number(face.score, SCORE)) + ", \"landmarks\": [" +
         landmarks + "], \"label\": " + quote(result.labels[face.label]) +
         ", \"probability\": " + to_number(face.probabilities[face.label], SHARE) + ", \"probabilities\": {" +
         write_probabilities(result, face) +
         "}, \"unsure\": " + (face.unsure < 0 ? "null" : face.unsure ? "true" : "false") + ", \"flags\": [" +
         write_flags(face.flags) + "]}";
}

}  // namespace

std::string to_json(const std::string &name, int width, int height, const edgeemo_result &result) {
  const std::vector<edgeemo_face> faces(result.faces, result.faces + result.face_count);
  const std::vector<std::string> left_out(result.left_out, result.left_out + result.left_out_count);
  return "{\"image\": " + quote(name) + ", \"width\": " + std::to_string(width) +
         ", \"height\": " + std::to_string(height) + ", \"faces\": [" +
         join(faces, [&result](const edgeemo_face &face) { return write_face(result, face); }) + "], \"left_out\": [" +
         join(left_out, quote) + "]}";
}
