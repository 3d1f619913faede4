// Damages valid plans at random and runs what is still accepted, under the sanitizers: a plan is
// refused, or every byte that it touches lies in its arena.
//
//   hostile_plans COUNT SEED PLAN...
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "edgetrain/engine.hpp"
#include "edgetrain/isa.hpp"

namespace {

using Words = std::vector<std::int64_t>;

// Larger plans are refused or slow; neither would find more.
constexpr std::size_t largest_arena = std::size_t{1} << 25;
constexpr std::size_t most_features = std::size_t{1} << 16;

Words read_plan(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)),
                                std::istreambuf_iterator<char>());
  Words words(bytes.size() / sizeof(std::int64_t));
  std::copy_n(bytes.data(), words.size() * sizeof(std::int64_t),
              reinterpret_cast<char*>(words.data()));
  return words;
}

std::int64_t damaged(std::int64_t original, const Words& plan, std::mt19937_64& random) {
  // Unsigned, so that a word may wrap.
  const auto word = static_cast<std::uint64_t>(original);
  switch (random() % 6) {
    case 0:
      return static_cast<std::int64_t>(word + 1);
    case 1:
      return static_cast<std::int64_t>(word - 1);
    case 2:
      return static_cast<std::int64_t>(word + 64 * (random() % 65) - 2048);
    case 3:
      return plan[random() % plan.size()];
    case 4:
      return static_cast<std::int64_t>(word * 2);
    default:
      return static_cast<std::int64_t>(random());
  }
}

// One step of training and one of evaluation. Returns whether the plan was accepted.
bool run(const Words& plan, const std::string& isa) {
  try {
    const edgetrain::Program program = edgetrain::parse_program(plan.data(), plan.size());
    if (program.arena_bytes > largest_arena || program.input_features > most_features) {
      return true;
    }
    edgetrain::Engine engine(program, 1, isa);
    std::vector<std::uint8_t> features(program.input_features * program.examples);
    std::vector<std::uint8_t> labels(program.examples, 0);
    std::vector<std::uint32_t> indices(program.examples);
    std::iota(features.begin(), features.end(), std::uint8_t{0});
    std::iota(indices.begin(), indices.end(), 0U);
    const edgetrain::Examples examples = {features.data(), 0, labels.data(), indices.data(),
                                          program.examples};
    engine.train(examples, {1, 1000, 1000, 0.5, {0.01, 0.1, 0.001}, 500, 3});
    engine.evaluate(examples);
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: hostile_plans COUNT SEED PLAN...\n");
    return 2;
  }
  const long count = std::strtol(argv[1], nullptr, 10);
  std::mt19937_64 random(std::strtoull(argv[2], nullptr, 10));
  const std::vector<std::string> isas = edgetrain::supported_isas();
  std::size_t accepted = 0;
  for (int plan = 3; plan < argc; ++plan) {
    const Words valid = read_plan(argv[plan]);
    for (const std::string& isa : isas) {
      if (!run(valid, isa)) {
        std::fprintf(stderr, "%s was refused as it is\n", argv[plan]);
        return 1;
      }
    }
    for (long i = 0; i < count; ++i) {
      Words words = valid;
      for (std::uint64_t hits = 1 + random() % 3; hits > 0; --hits) {
        std::int64_t& word = words[random() % words.size()];
        word = damaged(word, valid, random);
      }
      accepted += run(words, isas[random() % isas.size()]) ? 1 : 0;
    }
  }
  std::printf("%zu damaged plans were harmless, the others were refused\n", accepted);
  return 0;
}
