#include "edgetrain/isa.hpp"
#include "isa/avx512.hpp"
#include "table.hpp"

namespace edgetrain {

const Kernels& avx512_kernels() {
  // Over 64 bytes the loops of a depthwise convolution run no faster: those of AVX2 serve.
  static const Kernels table = make_table<Avx512>(avx2_kernels().depthwise);
  return table;
}

}  // namespace edgetrain
