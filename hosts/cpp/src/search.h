#pragma once

#include <memory>
#include <string>
#include <vector>

#include "card.h"
#include "crop.h"
#include "passes.h"
#include "runtime.h"

namespace edgeemo_host {

// Finds the faces of a whole image, as edgeemo/faces/search.py does. Any number of threads may share one.
class Detector {
 public:
  // path: blazeface-full.onnx, with its card beside it. threshold: lowest score; 0: the card's. Raises Error.
  Detector(std::shared_ptr<Runtime> runtime, const std::string &path, int threads, edgeemo_search search,
           double threshold);

  // Return the faces, the highest score first.
  std::vector<Detection> detect(const View &image) const;

  const Framing &framing() const { return card_.box; }

 private:
  Candidates look(const View &image, const std::vector<Pass> &passes) const;
  Candidates look_closer(const View &image, const Candidates &faces) const;

  DetectorCard card_;
  edgeemo_search search_;
  double threshold_;
  std::unique_ptr<Session> network_;
};

}  // namespace edgeemo_host
