#pragma once

#include <string>
#include <vector>

namespace edgeemo_host {

// The labels that are reported, and the position in them of each label of the model.
struct Reported {
  std::vector<std::string> labels;
  std::vector<int> positions;
};

// Return the labels of a named set (six, seven, ferplus8), or nothing for another name.
std::vector<std::string> find_label_set(const std::string &name);

// Return how a model's labels are reported in a label set; an empty name stands for the model's own labels.
// Raises Error for an unknown set, or one that the model cannot report in.
Reported merge_labels(const std::vector<std::string> &labels, const std::string &set);

}  // namespace edgeemo_host
