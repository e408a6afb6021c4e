#include "runtime.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/stat.h>

#include <cstdlib>

#include "errors.h"

namespace edgeemo_host {
namespace {

constexpr uint32_t API = 14;  // of ONNX Runtime 1.14; later libraries offer it, too
const char *const NAME = "libonnxruntime.so";

std::string find_in_folder(const std::string &folder) {
  std::string found;
  if (DIR *entries = opendir(folder.c_str())) {
    while (const dirent *entry = readdir(entries)) {
      const std::string name = entry->d_name;
      if (name.rfind(NAME, 0) == 0 && (found.empty() || name < found)) found = name;
    }
    closedir(entries);
  }
  return found.empty() ? "" : folder + "/" + found;
}

// Return the file to load; a folder may be that of the Python package, with the library in capi.
std::string find_library(std::string path) {
  const char *named = std::getenv("EDGEEMO_ONNXRUNTIME");
  if (path.empty() && named) path = named;
  if (path.empty()) return "";
  struct stat about;
  if (stat(path.c_str(), &about) != 0 || !S_ISDIR(about.st_mode)) return path;
  for (const char *inside : {"", "/capi", "/onnxruntime/capi"}) {
    const std::string found = find_in_folder(path + inside);
    if (!found.empty()) return found;
  }
  throw Error(EDGEEMO_MACHINE, "the folder " + path + " has no " + NAME);
}

void *load(const std::string &path) {
  if (!path.empty()) return dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
  void *library = dlopen("libonnxruntime.so.1", RTLD_LAZY | RTLD_LOCAL);
  return library ? library : dlopen(NAME, RTLD_LAZY | RTLD_LOCAL);
}

}  // namespace

Runtime::Runtime(const std::string &path) {
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // from 1.29 on, it is read when the library starts
  const std::string file = find_library(path);
  void *library = load(file);
  if (!library)
    throw Error(EDGEEMO_MACHINE, "ONNX Runtime cannot be loaded (" + std::string(dlerror()) +
                                     "): give its library, or the folder of the Python package onnxruntime, in the "
                                     "options or in EDGEEMO_ONNXRUNTIME");
  using GetBase = const OrtApiBase *(*)();
  const auto get_base = reinterpret_cast<GetBase>(dlsym(library, "OrtGetApiBase"));
  if (!get_base) throw Error(EDGEEMO_MACHINE, file + " is not ONNX Runtime: it has no OrtGetApiBase");
  api = get_base()->GetApi(API);
  if (!api)
    throw Error(EDGEEMO_MACHINE, std::string("expected ONNX Runtime 1.14 or later, got ") + get_base()->GetVersionString());
  OrtEnv *created = nullptr;
  check(api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "edgeemo", &created), "ONNX Runtime does not start", false);
  env = {created, api->ReleaseEnv};
  check(api->DisableTelemetryEvents(created), "ONNX Runtime's telemetry cannot be disabled", false);
}

void Runtime::check(OrtStatus *status, const std::string &what, bool is_file) const {
  if (!status) return;
  const std::string message = api->GetErrorMessage(status);
  api->ReleaseStatus(status);
  throw Error(is_file ? EDGEEMO_INTEGRITY : EDGEEMO_MACHINE, what + ": " + message);
}

Session::Session(std::shared_ptr<Runtime> runtime, const std::string &content, const std::string &name, int threads,
                 bool exact)
    : runtime_(std::move(runtime)), name_(name) {
  const OrtApi &api = *runtime_->api;
  const auto check = [this](OrtStatus *status) { runtime_->check(status, name_ + " cannot be opened by ONNX Runtime"); };
  OrtSessionOptions *raw = nullptr;
  check(api.CreateSessionOptions(&raw));
  const std::unique_ptr<OrtSessionOptions, decltype(api.ReleaseSessionOptions)> options(raw, api.ReleaseSessionOptions);
  check(api.SetSessionGraphOptimizationLevel(raw, ORT_ENABLE_ALL));
  check(api.SetIntraOpNumThreads(raw, threads));
  check(api.SetInterOpNumThreads(raw, 1));
  check(api.SetSessionLogSeverityLevel(raw, ORT_LOGGING_LEVEL_FATAL));
  check(api.DisableCpuMemArena(raw));  // it would keep the largest input's memory
  check(api.AddSessionConfigEntry(raw, "session.intra_op.allow_spinning", "0"));
  // It quantizes weights that the file keeps in float on purpose.
  check(api.AddSessionConfigEntry(raw, "optimization.disable_specified_optimizers", "WeightBiasQuantization"));
  if (exact) check(api.AddSessionConfigEntry(raw, "session.x64quantprecision", "1"));
  OrtMemoryInfo *memory = nullptr;
  check(api.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
  memory_ = {memory, api.ReleaseMemoryInfo};
  OrtSession *session = nullptr;
  check(api.CreateSessionFromArray(runtime_->env.get(), content.data(), content.size(), raw, &session));
  session_ = {session, api.ReleaseSession};
  input_ = get_name(true);
}

std::string Session::get_name(bool of_input) const {
  const OrtApi &api = *runtime_->api;
  OrtAllocator *allocator = nullptr;
  runtime_->check(api.GetAllocatorWithDefaultOptions(&allocator), name_);
  char *name = nullptr;
  runtime_->check(of_input ? api.SessionGetInputName(session_.get(), 0, allocator, &name)
                           : api.SessionGetOutputName(session_.get(), 0, allocator, &name),
                  name_);
  const std::string copy = name;
  runtime_->check(api.AllocatorFree(allocator, name), name_);
  return copy;
}

std::vector<int64_t> Session::get_shape(bool of_input) const {
  const OrtApi &api = *runtime_->api;
  size_t count = 0;
  runtime_->check(of_input ? api.SessionGetInputCount(session_.get(), &count) : api.SessionGetOutputCount(session_.get(), &count),
                  name_);
  if (count != 1) throw Error(EDGEEMO_INTEGRITY, name_ + ": expected one input and one output");
  OrtTypeInfo *type = nullptr;
  runtime_->check(
      of_input ? api.SessionGetInputTypeInfo(session_.get(), 0, &type) : api.SessionGetOutputTypeInfo(session_.get(), 0, &type),
      name_);
  const std::unique_ptr<OrtTypeInfo, decltype(api.ReleaseTypeInfo)> owner(type, api.ReleaseTypeInfo);
  const OrtTensorTypeAndShapeInfo *tensor = nullptr;
  runtime_->check(api.CastTypeInfoToTensorInfo(type, &tensor), name_);
  ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  if (tensor) runtime_->check(api.GetTensorElementType(tensor, &element), name_);
  if (element != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
    throw Error(EDGEEMO_INTEGRITY, name_ + ": expected tensors of float32");
  size_t rank = 0;
  runtime_->check(api.GetDimensionsCount(tensor, &rank), name_);
  std::vector<int64_t> shape(rank);
  runtime_->check(api.GetDimensions(tensor, shape.data(), rank), name_);
  return shape;
}

Tensor Session::take(OrtValue *value) const {
  const OrtApi &api = *runtime_->api;
  OrtTensorTypeAndShapeInfo *about = nullptr;
  runtime_->check(api.GetTensorTypeAndShape(value, &about), name_);
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(api.ReleaseTensorTypeAndShapeInfo)> owner(
      about, api.ReleaseTensorTypeAndShapeInfo);
  size_t rank = 0, count = 0;
  runtime_->check(api.GetDimensionsCount(about, &rank), name_);
  Tensor tensor{std::vector<int64_t>(rank), {}};
  runtime_->check(api.GetDimensions(about, tensor.shape.data(), rank), name_);
  runtime_->check(api.GetTensorShapeElementCount(about, &count), name_);
  float *values = nullptr;
  runtime_->check(api.GetTensorMutableData(value, reinterpret_cast<void **>(&values)), name_);
  tensor.values.assign(values, values + count);
  return tensor;
}

std::vector<Tensor> Session::run(const std::vector<int64_t> &shape, std::vector<float> &values,
                                 const std::vector<std::string> &outputs) const {
  const OrtApi &api = *runtime_->api;
  const auto release = [&api](OrtValue *value) { api.ReleaseValue(value); };
  using Owner = std::unique_ptr<OrtValue, decltype(release)>;
  OrtValue *raw = nullptr;
  runtime_->check(api.CreateTensorWithDataAsOrtValue(memory_.get(), values.data(), values.size() * sizeof(float),
                                                     shape.data(), shape.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                                     &raw),
                  name_);
  const Owner input(raw, release);
  std::vector<const char *> names;
  for (const auto &name : outputs) names.push_back(name.c_str());
  std::vector<OrtValue *> found(outputs.size());
  const char *input_name = input_.c_str();
  runtime_->check(
      api.Run(session_.get(), nullptr, &input_name, &raw, 1, names.data(), names.size(), found.data()),
      name_ + " is refused by ONNX Runtime");
  std::vector<Owner> owners;
  for (OrtValue *value : found) owners.emplace_back(value, release);
  std::vector<Tensor> tensors;
  for (OrtValue *value : found) tensors.push_back(take(value));
  return tensors;
}

}  // namespace edgeemo_host
