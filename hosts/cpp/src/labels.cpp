#include "labels.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "errors.h"

namespace edgeemo_host {
namespace {

using Labels = std::vector<std::string>;

struct LabelSet {
  Labels labels;
  std::map<std::string, std::string> merged;  // labels outside the set, with those that receive their probability
};

const std::map<std::string, LabelSet> &list_sets() {
  static const std::map<std::string, LabelSet> sets = {
      {"ferplus8", {{"neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"}, {}}},
      {"seven",
       {{"neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear"}, {{"contempt", "neutral"}}}},
      {"six",
       {{"neutral", "happiness", "surprise", "sadness", "anger", "fear"},
        {{"disgust", "anger"}, {"contempt", "neutral"}}}}};
  return sets;
}

int find_position(const LabelSet &set, const std::string &label) {
  const auto merged = set.merged.find(label);
  const auto &name = merged == set.merged.end() ? label : merged->second;
  const auto found = std::find(set.labels.begin(), set.labels.end(), name);
  return found == set.labels.end() ? -1 : int(found - set.labels.begin());
}

}  // namespace

Labels find_label_set(const std::string &name) {
  const auto found = list_sets().find(name);
  return found == list_sets().end() ? Labels() : found->second.labels;
}

Reported merge_labels(const Labels &labels, const std::string &name) {
  if (name.empty()) {
    std::vector<int> positions(labels.size());
    std::iota(positions.begin(), positions.end(), 0);
    return {labels, positions};
  }
  const auto found = list_sets().find(name);
  if (found == list_sets().end())
    throw Error(EDGEEMO_USAGE, "expected the label set six, seven or ferplus8, got " + name);
  const LabelSet &set = found->second;
  Reported reported{set.labels, {}};
  for (const auto &label : labels) {
    reported.positions.push_back(find_position(set, label));
    if (reported.positions.back() < 0)
      throw Error(EDGEEMO_USAGE, "the model predicts " + label + ", which the label set " + name + " lacks");
  }
  for (size_t k = 0; k < set.labels.size(); ++k)
    if (std::count(reported.positions.begin(), reported.positions.end(), int(k)) == 0)
      throw Error(EDGEEMO_USAGE, "the label set " + name + " also needs " + set.labels[k] +
                                     ", which the model does not predict");
  return reported;
}

}  // namespace edgeemo_host
