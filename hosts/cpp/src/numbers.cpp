#include "numbers.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>

namespace edgeemo_host {
namespace {

// A number as 0.DIGITS * 10^point.
struct Decimal {
  std::string digits;
  int point;
};

Decimal find_digits(double value) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific).ptr;
  const std::string all(text, end);
  const auto e = all.find('e');
  std::string digits;
  for (const char one : all.substr(0, e))
    if (one != '.') digits += one;
  digits.erase(digits.find_last_not_of('0') + 1);
  return {digits, std::atoi(all.c_str() + e + 1) + 1};
}

// Place the point among the digits, with zeros where it lies outside.
std::string place_point(const Decimal &number) {
  const int length = static_cast<int>(number.digits.size());
  if (number.point >= length) return number.digits + std::string(number.point - length, '0');
  if (number.point > 0) return number.digits.substr(0, number.point) + "." + number.digits.substr(number.point);
  return "0." + std::string(-number.point, '0') + number.digits;
}

std::string with_exponent(const Decimal &number, const char *pattern) {
  char exponent[16];
  std::snprintf(exponent, sizeof exponent, pattern, number.point - 1);
  const std::string rest = number.digits.substr(1);
  return number.digits.substr(0, 1) + (rest.empty() ? "" : "." + rest) + exponent;
}

}  // namespace

std::string to_canonical(double value) {
  if (value == 0) return "0";
  if (value < 0) return "-" + to_canonical(-value);
  const Decimal number = find_digits(value);
  return number.point > -6 && number.point <= 21 ? place_point(number) : with_exponent(number, "e%+d");
}

std::string to_python(double value) {
  if (value == 0) return 1 / value < 0 ? "-0.0" : "0.0";
  if (value < 0) return "-" + to_python(-value);
  const Decimal number = find_digits(value);
  if (number.point <= -4 || number.point > 16) return with_exponent(number, "e%+03d");
  const std::string text = place_point(number);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

double round_to(double value, int places) {
  char text[512];
  std::snprintf(text, sizeof text, "%.*f", places, value);
  return std::strtod(text, nullptr);
}

std::string format(const char *pattern, double value) {
  char text[512];
  std::snprintf(text, sizeof text, pattern, value);
  return text;
}

}  // namespace edgeemo_host
