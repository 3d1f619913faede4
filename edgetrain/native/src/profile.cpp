#include "edgetrain/profile.hpp"

namespace edgetrain {

Profile::Profile(std::size_t layers) : times_(layers * phase_count) {}

void Profile::add(std::size_t layer, Phase phase, std::chrono::nanoseconds time) {
  times_[layer * phase_count + static_cast<std::size_t>(phase)] +=
      static_cast<std::uint64_t>(time.count());
}

std::vector<std::uint64_t> Profile::nanoseconds() const { return {times_.begin(), times_.end()}; }

Timer::Timer(Profile* profile, std::size_t layer, Phase phase)
    : profile_(profile), layer_(layer), phase_(phase) {
  if (profile_ != nullptr) {
    start_ = std::chrono::steady_clock::now();
  }
}

Timer::~Timer() {
  if (profile_ != nullptr) {
    profile_->add(layer_, phase_, std::chrono::steady_clock::now() - start_);
  }
}

}  // namespace edgetrain
