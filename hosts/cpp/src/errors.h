#pragma once

#include <stdexcept>
#include <string>

#include "edgeemo.h"

namespace edgeemo_host {

// An error that its message explains: what was expected, what came, and where from.
struct Error : std::runtime_error {
  Error(edgeemo_status status, const std::string &message) : std::runtime_error(message), status(status) {}
  edgeemo_status status;
};

}  // namespace edgeemo_host
