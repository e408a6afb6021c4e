#include "resize.h"

#include <algorithm>
#include <cmath>

namespace edgeemo_host {
namespace {

constexpr int BITS = 22;  // of a weight's fraction
constexpr double GAP = 2;  // a part is averaged down to not less than this many times the result

// What each pixel of a resized line is made of: weights of consecutive pixels.
struct Line {
  std::vector<int> first, count, weights;  // weights: `most` per pixel
  int most;
};

Line make_line(int length, float from, float to, int size) {
  const double scale = double(to - from) / size;
  const double reach = std::max(1.0, scale);
  Line line{std::vector<int>(size), std::vector<int>(size), {}, int(std::ceil(reach)) * 2 + 1};
  line.weights.resize(size_t(size) * line.most);
  std::vector<double> weights(line.most);
  for (int x = 0; x < size; ++x) {
    const double centre = from + (x + 0.5) * scale;
    const int first = std::max(0, int(centre - reach + 0.5));
    const int count = std::min(length, int(centre + reach + 0.5)) - first;
    double sum = 0;
    for (int k = 0; k < count; ++k) {
      weights[k] = std::max(0.0, 1 - std::abs((k + first - centre + 0.5) * (1 / reach)));
      sum += weights[k];
    }
    for (int k = 0; k < count; ++k)
      line.weights[size_t(x) * line.most + k] = int(0.5 + (sum != 0 ? weights[k] / sum : weights[k]) * (1 << BITS));
    line.first[x] = first, line.count[x] = count;
  }
  return line;
}

uint8_t to_level(int sum) { return uint8_t(std::clamp(sum >> BITS, 0, 255)); }

Image resize_rows(const View &image, int first_row, int rows, const Line &line) {
  Image resized(int(line.first.size()), rows, image.channels);
  const int channels = image.channels;
  for (int y = 0; y < rows; ++y) {
    const uint8_t *source = image.row(first_row + y);
    uint8_t *target = resized.row(y);
    for (int x = 0; x < resized.width; ++x) {
      const int *weights = &line.weights[size_t(x) * line.most];
      const uint8_t *pixel = source + ptrdiff_t(line.first[x]) * channels;
      for (int channel = 0; channel < channels; ++channel) {
        int sum = 1 << (BITS - 1);
        for (int k = 0; k < line.count[x]; ++k) sum += weights[k] * pixel[k * channels + channel];
        *target++ = to_level(sum);
      }
    }
  }
  return resized;
}

Image resize_columns(const Image &image, int first_row, const Line &line) {
  Image resized(image.width, int(line.first.size()), image.channels);
  const int values = image.width * image.channels;
  std::vector<int> sums(values);
  for (int y = 0; y < resized.height; ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (BITS - 1));
    for (int k = 0; k < line.count[y]; ++k) {
      const int weight = line.weights[size_t(y) * line.most + k];
      const uint8_t *source = image.row(line.first[y] + k - first_row);
      for (int x = 0; x < values; ++x) sums[x] += weight * source[x];
    }
    std::transform(sums.begin(), sums.end(), resized.row(y), to_level);
  }
  return resized;
}

struct WholeBox {
  int left, top, right, bottom;
};

// Average blocks of across x down pixels of a part, as Pillow's Image.reduce does; blocks at its end may be smaller.
Image reduce(const View &image, int across, int down, const WholeBox &box) {
  const int width = box.right - box.left, height = box.bottom - box.top;
  Image reduced((width + across - 1) / across, (height + down - 1) / down, image.channels);
  for (int y = 0; y < reduced.height; ++y) {
    const int rows = std::min(down, height - y * down);
    uint8_t *target = reduced.row(y);
    for (int x = 0; x < reduced.width; ++x) {
      const int columns = std::min(across, width - x * across);
      const uint32_t pixels = uint32_t(rows) * columns;
      // In single precision, as Pillow computes it.
      const auto factor = uint32_t(4294967296.0f / float(256 * pixels));
      for (int channel = 0; channel < image.channels; ++channel) {
        uint32_t sum = pixels / 2;
        for (int j = 0; j < rows; ++j) {
          const uint8_t *source = image.row(box.top + y * down + j) +
                                  ptrdiff_t(box.left + x * across) * image.channels + channel;
          for (int i = 0; i < columns; ++i) sum += source[i * image.channels];
        }
        *target++ = uint8_t(sum * factor >> 24);
      }
    }
  }
  return reduced;
}

int find_factor(float length, int size) { return std::max(1, int(double(length) / size / GAP)); }

}  // namespace

Image resize(const View &image, int width, int height, const Box &box) {
  const Line rows = make_line(image.width, box.left, box.right, width);
  const Line columns = make_line(image.height, box.top, box.bottom, height);
  const int first = columns.first.front(), last = columns.first.back() + columns.count.back();
  const Image narrow = resize_rows(image, first, last - first, rows);
  return resize_columns(narrow, first, columns);
}

Image resize_in_two_steps(const View &image, int width, int height, const Box &box) {
  const int across = find_factor(box.right - box.left, width), down = find_factor(box.bottom - box.top, height);
  if (across == 1 && down == 1) return resize(image, width, height, box);
  const double support_x = 0.5 * (double(box.right) - box.left) / width;
  const double support_y = 0.5 * (double(box.bottom) - box.top) / height;
  const WholeBox part = {std::max(0, int(box.left - support_x)), std::max(0, int(box.top - support_y)),
                         std::min(image.width, int(std::ceil(box.right + support_x))),
                         std::min(image.height, int(std::ceil(box.bottom + support_y)))};
  const Box rest = {float((double(box.left) - part.left) / across), float((double(box.top) - part.top) / down),
                    float((double(box.right) - part.left) / across), float((double(box.bottom) - part.top) / down)};
  return resize(reduce(image, across, down, part), width, height, rest);
}

}  // namespace edgeemo_host
