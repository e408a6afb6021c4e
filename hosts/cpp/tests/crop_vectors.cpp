// Compare every face of docs/crop-vectors.json: crop_vectors FILE prints a line per face, its name and largest difference.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "crop.h"

using namespace edgeemo_host;
using nlohmann::json;

namespace {

std::vector<uint8_t> decode_base64(const std::string &text) {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<uint8_t> bytes;
  unsigned bits = 0;
  int count = 0;
  for (const char one : text) {
    const auto value = alphabet.find(one);
    if (value == std::string::npos) break;
    bits = bits << 6 | unsigned(value);
    count += 6;
    if (count >= 8) bytes.push_back(uint8_t(bits >> (count -= 8)));
  }
  return bytes;
}

int compare(const View &image, const json &face) {
  const json &input = face["input"], &rule = input["crop"];
  Contract contract;
  contract.size = input["size"], contract.colour = input["colour"];
  contract.crop = {rule["side_eye_distances"], rule["below_eyes"], rule["turn_from_degrees"]};
  Detection found{face["box"], 1, {}};
  for (const auto &eye : face["eyes"]) found.landmarks.push_back({eye[0], eye[1]});
  const json &box = face["detector_box"];
  const Framing framing = box.is_null() ? Framing{} : Framing{box["side_eye_distances"], box["below_eyes"]};
  const Image cropped = crop(image, place(found, contract.crop, box.is_null() ? nullptr : &framing), contract);
  const auto expected = decode_base64(face["crop"]);
  if (expected.size() != cropped.pixels.size()) return 256;
  int largest = 0;
  for (size_t k = 0; k < expected.size(); ++k) largest = std::max(largest, std::abs(expected[k] - cropped.pixels[k]));
  return largest;
}

}  // namespace

int main(int count, char **texts) {
  if (count != 2) return 2;
  std::ifstream file(texts[1]);
  const json vectors = json::parse(file);
  const json &about = vectors["image"];
  Image image(about["width"], about["height"], 3);
  image.pixels = decode_base64(about["pixels"]);
  for (const auto &face : vectors["faces"])
    std::printf("%d %s\n", compare(image, face), face["name"].get<std::string>().c_str());
}
