// Where the time of a training step goes, for those who ask.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace edgetrain {

// A layer's forward pass holds its norm, and gradients holds that of the input, which is apart
// where a kernel of its own computes it.
enum class Phase : std::size_t { forward, forward_norm, backward_norm, input_gradient, gradients };
constexpr std::size_t phase_count = 5;

// Nanoseconds of every layer's phases, layer after layer. Tiles of a norm add theirs from all
// threads; the other phases are of the caller's clock.
class Profile {
 public:
  explicit Profile(std::size_t layers);
  void add(std::size_t layer, Phase phase, std::chrono::nanoseconds time);
  std::vector<std::uint64_t> nanoseconds() const;

 private:
  std::vector<std::atomic<std::uint64_t>> times_;
};

// Adds its own life to a phase. Without a profile no clock is read.
class Timer {
 public:
  Timer(Profile* profile, std::size_t layer, Phase phase);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  Profile* profile_;
  std::size_t layer_;
  Phase phase_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace edgetrain
