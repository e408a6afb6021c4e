#pragma once

#include <string>

namespace edgeemo_host {

// Return a finite number as RFC 8785 and JavaScript write it: the fewest digits that give the same double.
std::string to_canonical(double value);

// Return a finite number as Python's json writes a float, such as 48.0 or 6.8e-05.
std::string to_python(double value);

// Round to decimal places, half to even of the exact value, as Python's round does.
double round_to(double value, int places);

// Return printf's text of a number.
std::string format(const char *pattern, double value);

}  // namespace edgeemo_host
