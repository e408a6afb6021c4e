// Four threads share one model: threads MODEL DETECTOR WIDTH HEIGHT reads a gray frame from standard input, and prints
// how many of 20 results each are the same, of both forms of the frame: gray, and BGR with gaps between its rows.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "edgeemo.h"

namespace {

bool is_same(const edgeemo_result &first, const edgeemo_result &second) {
  if (first.face_count != second.face_count || first.face_count == 0) return false;
  for (int k = 0; k < first.face_count; ++k) {
    if (std::memcmp(first.faces[k].box, second.faces[k].box, sizeof first.faces[k].box) != 0) return false;
    for (int label = 0; label < first.label_count; ++label)
      if (first.faces[k].probabilities[label] != second.faces[k].probabilities[label]) return false;
  }
  return true;
}

}  // namespace

int main(int count, char **texts) {
  if (count != 5) return 2;
  edgeemo_options options{};
  options.detector = texts[2];
  edgeemo *model = nullptr;
  const int width = std::atoi(texts[3]), height = std::atoi(texts[4]), gap = 5;
  if (edgeemo_open(texts[1], &options, &model) != EDGEEMO_OK) return std::puts(edgeemo_error()), 1;
  std::vector<uint8_t> gray(size_t(width) * height), colour(size_t(width * 3 + gap) * height);
  if (std::fread(gray.data(), 1, gray.size(), stdin) != gray.size()) return 2;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width * 3; ++x) colour[size_t(y) * (width * 3 + gap) + x] = gray[size_t(y) * width + x / 3];
  const edgeemo_frame frames[] = {{gray.data(), width, height, 0, EDGEEMO_GRAY},
                                  {colour.data(), width, height, width * 3 + gap, EDGEEMO_BGR}};
  edgeemo_result *first = nullptr;
  if (edgeemo_faces(model, &frames[0], &first) != EDGEEMO_OK) return std::puts(edgeemo_error()), 1;
  std::atomic<int> same{0};
  std::vector<std::thread> threads;
  for (int k = 0; k < 4; ++k)
    threads.emplace_back([&, k] {
      for (int time = 0; time < 20; ++time) {
        edgeemo_result *result = nullptr;
        if (edgeemo_faces(model, &frames[k % 2], &result) == EDGEEMO_OK) same += is_same(*first, *result);
        edgeemo_free(result);
      }
    });
  for (auto &thread : threads) thread.join();
  std::printf("%d same\n", same.load());
  edgeemo_close(model);
  edgeemo_free(first);
}
