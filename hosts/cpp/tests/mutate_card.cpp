// Parse damaged forms of a card: mutate_card CARD COUNT prints how many were refused. Built with sanitizers, it also
// shows that none makes the parser read or write where it must not.

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "card.h"
#include "errors.h"

using namespace edgeemo_host;

namespace {

std::string mutate(std::string text, std::mt19937 &random) {
  const auto draw = [&random](size_t limit) { return size_t(random()) % limit; };
  const std::string marks = "{}[]\",:0-e.\\u\xff\x01";
  for (size_t times = 1 + draw(4); times; --times) {
    const size_t at = draw(text.size());
    switch (draw(5)) {
      case 0: text[at] = char(draw(256)); break;
      case 1: text.erase(at, 1 + draw(40)); break;
      case 2: text.insert(at, text, draw(text.size()), 1 + draw(200)); break;
      case 3: text.insert(at, 1 + draw(300), marks[draw(marks.size())]); break;
      default: text[at] = marks[draw(marks.size())];
    }
    if (text.empty()) text = "{";
  }
  return text;
}

}  // namespace

int main(int count, char **texts) {
  if (count != 3) return 2;
  const std::string card = read_file(texts[1], 4 << 20);
  parse_card(card, "card");
  std::mt19937 random(0);
  const int total = std::atoi(texts[2]);
  int refused = 0, same = 0;
  for (int k = 0; k < total; ++k) {
    const std::string damaged = mutate(card, random);
    try {
      parse_card(damaged, "card");
      ++same;
    } catch (const Error &) {
      ++refused;
    }
  }
  std::printf("%d refused, %d read\n", refused, same);
}
