#include "edgetrain/kernels.hpp"

namespace edgetrain {

void shift_weights(WeightMode mode, std::size_t plane, std::uint32_t shift,
                   const std::int8_t (&planes)[2][lanes], std::int8_t* values) {
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    std::int32_t weight = 0;
    for (std::size_t part = 0; part < planes_of(mode); ++part) {
      weight += plane_factor(mode, part) * planes[part][lane];
    }
    // Masked, because a damaged plan may lay another tensor over the shifts.
    const std::int32_t shifted = weight * (1 << (shift & 7U));
    const std::int32_t split = plane == 0 ? shifted >> 7 : shifted & 127;
    values[lane] = static_cast<std::int8_t>(mode == WeightMode::bnn ? shifted : split);
  }
}

}  // namespace edgetrain
