// A few steps of whole plans on every instruction set that this processor runs: each must leave the
// same trained state. Prints its digest, which two machines must share.
//
//   same_steps PLAN...
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "edgetrain/engine.hpp"
#include "edgetrain/isa.hpp"

namespace {

using Words = std::vector<std::int64_t>;

constexpr std::uint64_t steps = 4;

Words read_plan(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)),
                                std::istreambuf_iterator<char>());
  Words words(bytes.size() / sizeof(std::int64_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(std::int64_t));
  return words;
}

class Digest {
 public:
  void add(std::uint64_t value) { state_ = (state_ ^ value) * 0x100000001B3U; }
  void add(double value) {
    std::uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    add(bits);
  }
  void add(const std::uint8_t* bytes, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      add(std::uint64_t{bytes[i]});
    }
  }
  std::uint64_t value() const { return state_; }

 private:
  std::uint64_t state_ = 0xCBF29CE484222325U;
};

std::size_t weight_bytes(const edgetrain::Block& block) {
  if (block.convolutional) {
    const edgetrain::ConvRecord& conv = block.conv;
    const bool scaled = conv.mode == edgetrain::WeightMode::fsb;
    const std::size_t rows = conv.weight_rows() / (scaled ? conv.shape.taps() : 1);
    return edgetrain::state_bytes(conv.holding, rows, conv.weight_columns());
  }
  const edgetrain::LinearRecord& linear = block.linear;
  const bool scaled = linear.mode == edgetrain::WeightMode::fsb;
  return edgetrain::state_bytes(
      linear.holding, linear.outputs,
      scaled ? (linear.inputs + linear.group - 1) / linear.group : linear.inputs);
}

// Weights, and what the norms have learnt. Scratch is left out: each set uses its own.
void add_state(const edgetrain::Program& program, const edgetrain::Arena& arena, Digest& digest) {
  for (const edgetrain::Block& block : program.blocks) {
    const std::size_t weights = block.convolutional ? block.conv.weights : block.linear.weights;
    digest.add(arena.at<std::uint8_t>(weights), weight_bytes(block));
    const edgetrain::BatchNormRecord& norm = block.norm;
    for (const std::size_t state :
         {norm.shift, norm.moment1, norm.moment2, norm.mean, norm.deviation}) {
      // A block that nothing trains has no moments.
      if (state != edgetrain::absent) {
        digest.add(arena.at<std::uint8_t>(state), norm.channels * sizeof(float));
      }
    }
  }
}

// The digest of the losses, and of the state after every step.
std::uint64_t run(const Words& plan, const std::string& isa) {
  const edgetrain::Program program = edgetrain::parse_program(plan.data(), plan.size());
  edgetrain::Engine engine(program, 7, isa);
  engine.initialise();
  std::mt19937_64 random(5);
  std::vector<std::uint8_t> features(program.input_features * program.examples);
  std::vector<std::uint8_t> labels(program.examples);
  std::vector<std::uint32_t> indices(program.examples);
  std::generate(features.begin(), features.end(),
                [&] { return static_cast<std::uint8_t>(random()); });
  std::generate(labels.begin(), labels.end(),
                [&] { return static_cast<std::uint8_t>(random() % program.loss.classes); });
  std::iota(indices.begin(), indices.end(), 0U);
  Digest digest;
  for (std::uint64_t step = 0; step < steps; ++step) {
    // The last step has an example less, so that no count is whole.
    const std::size_t count =
        step + 1 == steps && program.examples > 2 ? program.examples - 1 : program.examples;
    const edgetrain::Examples examples = {features.data(), 128, labels.data(), indices.data(),
                                          count};
    digest.add(engine.train(examples, {step, 900, 700, 0.5, {0.01, 0.1, 0.001}, 500, 3}).loss_sum);
    digest.add(engine.evaluate(examples).loss_sum);
    add_state(program, engine.arena(), digest);
  }
  return digest.value();
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> isas = edgetrain::supported_isas();
  for (int plan = 1; plan < argc; ++plan) {
    const Words words = read_plan(argv[plan]);
    const std::uint64_t twin = run(words, "portable");
    for (const std::string& isa : isas) {
      const std::uint64_t digest = run(words, isa);
      std::printf("%s %-9s %016llx\n", argv[plan], isa.c_str(),
                  static_cast<unsigned long long>(digest));
      if (digest != twin) {
        std::fprintf(stderr, "%s differs from portable\n", isa.c_str());
        return 1;
      }
    }
  }
  return 0;
}
