#pragma once

#include <string>

namespace edgeemo_host {

// Return the SHA-256 (FIPS 180-4) of bytes in lower-case hex.
std::string compute_sha256(const std::string &bytes);

}  // namespace edgeemo_host
