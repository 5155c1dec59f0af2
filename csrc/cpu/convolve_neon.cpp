// ARM's NEON: f32, and bf16 widened to f32.
#include "convolve_simd.h"
#include "floats_neon.h"

namespace liif {

void convolve_neon(const ConvolveParams& p, int64_t begin, int64_t end) {
  p.type == Type::bf16 ? convolve_rows<Bf16>(p, begin, end) : convolve_rows<F32>(p, begin, end);
}

}  // namespace liif
