#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>
#include <vector>

namespace edgeemo_host {

// ONNX Runtime, loaded at run time, so that the library of its Python package serves as well as the system's.
class Runtime {
 public:
  // path: the library or a folder with it; empty: as EDGEEMO_ONNXRUNTIME says, or the system's. Raises Error.
  explicit Runtime(const std::string &path);
  Runtime(const Runtime &) = delete;
  Runtime &operator=(const Runtime &) = delete;

  // Raise Error with `what` if a call failed.
  void check(OrtStatus *status, const std::string &what, bool is_file = true) const;

  const OrtApi *api = nullptr;
  std::shared_ptr<OrtEnv> env;  // the library stays loaded: other models may use it, and its threads may still end
};

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// An open model file, whose inputs and outputs are float32. Any number of threads may share it.
class Session {
 public:
  // exact: use INT8 kernels that cannot saturate. Raises Error if ONNX Runtime refuses the content.
  Session(std::shared_ptr<Runtime> runtime, const std::string &content, const std::string &name, int threads,
          bool exact);

  // Return the shape of the only input or output; -1 stands for a variable size. Raises Error if there are several.
  std::vector<int64_t> get_shape(bool of_input) const;

  // Run one input; raises Error.
  std::vector<Tensor> run(const std::vector<int64_t> &shape, std::vector<float> &values,
                          const std::vector<std::string> &outputs) const;

  // Return the name of the first input or output.
  std::string get_name(bool of_input) const;

 private:
  Tensor take(OrtValue *value) const;

  std::shared_ptr<Runtime> runtime_;
  std::string name_;
  std::shared_ptr<OrtSession> session_;
  std::shared_ptr<OrtMemoryInfo> memory_;
  std::string input_;
};

}  // namespace edgeemo_host
