#pragma once

#include <optional>
#include <string>
#include <vector>

namespace edgeemo_host {

// The square around a face whose eyes are known.
struct CropRule {
  double side_eye_distances = 2.8, below_eyes = 0.3, turn_from_degrees = 10;
};

// How an image becomes a model's input.
struct Contract {
  int size = 0;
  std::string colour;
  std::vector<float> mean, std;
  CropRule crop;
  bool is_gray() const { return colour != "rgb"; }
  int channels() const { return colour == "gray" ? 1 : 3; }
};

// What a model's card says, as far as predicting needs it.
struct Card {
  std::string sha256;
  std::vector<std::string> labels;
  Contract input;
  double temperature = 1;
  std::vector<std::vector<double>> matrix;  // of the adaptation; empty without one
  std::vector<double> bias;
  std::optional<double> least_probability;
  bool overflow_safe = false;
};

// How a detector's boxes lie about the eyes of an upright, frontal face.
struct Framing {
  double side_eye_distances, below_eyes;
};

struct DetectorCard {
  std::string sha256;
  int input_size;
  double threshold, smallest_face;
  bool half_pass;
  Framing box;
};

// Return the content of a regular file; raise Error if it cannot be read or has more bytes.
std::string read_file(const std::string &path, size_t most);

// Return a model's card of format 2, checked as docs/card.md says; raise Error with `path` if it is not one.
Card parse_card(const std::string &text, const std::string &path);

// Return the card of a detector of the family blazeface; raise Error with `path` if it is not one.
DetectorCard parse_detector_card(const std::string &text, const std::string &path);

}  // namespace edgeemo_host
