// edgeemo-predict: print the faces in PNG and JPEG files as `edgeemo predict --json` does.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "edgeemo.h"
#include "errors.h"
#include "print.h"
#include "read_image.h"

namespace {

using edgeemo_host::Error;

const char *const USAGE =
    "Usage: edgeemo-predict --model FILE [OPTIONS] IMAGES...\n"
    "\n"
    "  Find the faces in PNG and JPEG files and predict their emotions: one JSON object per line, one for each image.\n"
    "\n"
    "  --model FILE          a model, such as small.onnx, with its card small.onnx.json\n"
    "  --detector FILE       blazeface-full.onnx, with its card; default: in detectors/ beside the model\n"
    "  --crop                the images are ready crops of one face each\n"
    "  --faces few|many      search the image as a whole, or tiles of it, too; default: by its size\n"
    "  --no-augment          one crop of each face instead of the average of three\n"
    "  --threshold X         lowest score of a face\n"
    "  --label-set NAME      report in six, seven or ferplus8\n"
    "  --threads N           threads of ONNX Runtime; default: 1\n"
    "  --onnxruntime PATH    ONNX Runtime's library or a folder with it; default: EDGEEMO_ONNXRUNTIME, or the system's\n";

struct Arguments {
  std::string model, detector, onnxruntime, label_set;
  bool crop = false;
  edgeemo_options options{};
  std::vector<std::string> images;
};

template <typename Number>
Number parse(const char *option, const char *text, Number (*read)(const char *, char **)) {
  char *end = nullptr;
  const Number number = read(text, &end);
  if (end == text || *end) throw Error(EDGEEMO_USAGE, std::string(option) + ": expected a number, got " + text);
  return number;
}

edgeemo_search parse_search(const std::string &text) {
  if (text != "few" && text != "many") throw Error(EDGEEMO_USAGE, "--faces: expected few or many, got " + text);
  return text == "few" ? EDGEEMO_FEW : EDGEEMO_MANY;
}

Arguments read_arguments(int count, char **texts) {
  Arguments arguments;
  for (int k = 1; k < count; ++k) {
    const std::string option = texts[k];
    const auto next = [&] {
      if (++k >= count) throw Error(EDGEEMO_USAGE, option + " needs a value; see  edgeemo-predict --help");
      return texts[k];
    };
    if (option == "--crop") arguments.crop = true;
    else if (option == "--no-augment") arguments.options.one_crop = 1;
    else if (option == "--model") arguments.model = next();
    else if (option == "--detector") arguments.detector = next();
    else if (option == "--onnxruntime") arguments.onnxruntime = next();
    else if (option == "--label-set") arguments.label_set = next();
    else if (option == "--faces") arguments.options.search = parse_search(next());
    else if (option == "--threshold") arguments.options.threshold = parse("--threshold", next(), std::strtod);
    else if (option == "--threads")
      arguments.options.threads = int(parse<long>("--threads", next(), [](const char *text, char **end) {
        return std::strtol(text, end, 10);
      }));
    else if (option.rfind("--", 0) == 0) throw Error(EDGEEMO_USAGE, option + " is no option; see  edgeemo-predict --help");
    else arguments.images.push_back(option);
  }
  if (arguments.model.empty() || arguments.images.empty()) throw Error(EDGEEMO_USAGE, USAGE);
  return arguments;
}

edgeemo *open(Arguments &arguments) {
  if (arguments.detector.empty()) {
    const size_t slash = arguments.model.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : arguments.model.substr(0, slash + 1);
    arguments.detector = folder + "detectors/blazeface-full.onnx";
  }
  if (!arguments.crop) arguments.options.detector = arguments.detector.c_str();
  if (!arguments.onnxruntime.empty()) arguments.options.onnxruntime = arguments.onnxruntime.c_str();
  if (!arguments.label_set.empty()) arguments.options.label_set = arguments.label_set.c_str();
  edgeemo *model = nullptr;
  const edgeemo_status status = edgeemo_open(arguments.model.c_str(), &arguments.options, &model);
  if (status != EDGEEMO_OK) throw Error(status, edgeemo_error());
  return model;
}

void predict(const edgeemo *model, const std::string &path, bool crop) {
  const edgeemo_host::Image image = read_image(path);
  const edgeemo_frame frame = {image.pixels.data(), image.width, image.height, 0,
                               image.channels == 1 ? EDGEEMO_GRAY : EDGEEMO_RGB};
  edgeemo_result *result = nullptr;
  const edgeemo_status status = (crop ? edgeemo_predict : edgeemo_faces)(model, &frame, &result);
  if (status != EDGEEMO_OK) throw Error(status, path + ": " + edgeemo_error());
  std::puts(to_json(path, image.width, image.height, *result).c_str());
  edgeemo_free(result);
}

int run(int count, char **texts) {
  Arguments arguments = read_arguments(count, texts);
  edgeemo *model = open(arguments);
  int code = EDGEEMO_OK;
  for (const auto &path : arguments.images) {
    try {
      predict(model, path, arguments.crop);
    } catch (const Error &error) {
      std::fprintf(stderr, "error: %s\n", error.what());
      code = error.status;
      if (code != EDGEEMO_DATA) break;
    }
  }
  edgeemo_close(model);
  return code;
}

}  // namespace

int main(int count, char **texts) {
  if (count == 2 && !std::strcmp(texts[1], "--help")) return std::fputs(USAGE, stdout) < 0;
  try {
    return run(count, texts);
  } catch (const Error &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.status;
  }
}
