#pragma once

#include "crop.h"

namespace edgeemo_host {

// Return EDGEEMO_SMALL, EDGEEMO_TILTED and EDGEEMO_CLIPPED as they apply to a face and its square, as
// edgeemo/faces/quality.py does for a detector with six landmarks.
unsigned find_flags(const Detection &face, const Square &square, int width, int height, const Contract &contract);

}  // namespace edgeemo_host
