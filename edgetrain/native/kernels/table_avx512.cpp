#include "edgetrain/isa.hpp"
#include "isa/avx512.hpp"
#include "table.hpp"

namespace edgetrain {

const Kernels& avx512_kernels() {
  static constexpr Kernels table = make_table<Avx512>();
  return table;
}

}  // namespace edgetrain
