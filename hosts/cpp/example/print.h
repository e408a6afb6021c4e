#pragma once

#include <string>

#include "edgeemo.h"

// Return the line of `edgeemo predict --json` for an image: the same keys, order and rounding.
std::string to_json(const std::string &name, int width, int height, const edgeemo_result &result);
