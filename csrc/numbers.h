// Storage types of numbers and the ways between them, the same for processors and CUDA devices.
//
// Compiled once per instruction set and never shared between them: the linker could keep the copy of a set that the processor
// lacks. Hence the unnamed namespace, and no standard library templates here or in the files that include it.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define LIIF_ANYWHERE __host__ __device__
#else
#define LIIF_ANYWHERE
#endif

namespace liif {

// f16: IEEE 754 half precision.
enum class Type : int32_t { u8 = 0, u16 = 1, f32 = 2, bf16 = 3, f16 = 4, i8 = 5 };

namespace {

LIIF_ANYWHERE inline float float_of(uint32_t bits) {
  union {
    uint32_t u;
    float f;
  } same;
  same.u = bits;
  return same.f;
}

LIIF_ANYWHERE inline uint32_t bits_of(float value) {
  union {
    float f;
    uint32_t u;
  } same;
  same.f = value;
  return same.u;
}

[[maybe_unused]] LIIF_ANYWHERE inline float bf16_to_float(uint16_t v) { return float_of(static_cast<uint32_t>(v) << 16); }

// Round to nearest even; finite values only.
[[maybe_unused]] LIIF_ANYWHERE inline uint16_t float_to_bf16(float f) {
  const uint32_t bits = bits_of(f);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Exact.
[[maybe_unused]] LIIF_ANYWHERE inline float f16_to_float(uint16_t v) {
  // The product moves the exponent from one bias to the other, of subnormal numbers too.
  const float size = float_of((v & 0x7fffu) << 13) * 0x1p112f;
  const uint32_t infinite = (v & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;  // or not a number
  return float_of(bits_of(size) | infinite | (v & 0x8000u) << 16);
}

// Round to nearest even, to infinity from 65520 on; no NaN.
[[maybe_unused]] LIIF_ANYWHERE inline uint16_t float_to_f16(float f) {
  const uint32_t sign = bits_of(f) >> 16 & 0x8000u, size = bits_of(f) & 0x7fffffffu;
  // Below 2^-14 halves are multiples of 2^-24, which is the last place of floats from 0.5 to 1.
  const uint32_t small = bits_of(float_of(size) + 0.5f) - 0x3f000000u;
  const uint32_t rounded = (size + 0xfff + (size >> 13 & 1) - 0x38000000u) >> 13;
  const uint32_t usual = rounded < 0x7c00u ? rounded : 0x7c00u;
  const uint32_t is_small = 0u - static_cast<uint32_t>(size < 0x38800000u);  // a mask, of which compilers make vectors
  return static_cast<uint16_t>(sign | (small & is_small) | (usual & ~is_small));
}

// Round to nearest even for 0 <= v < 2^22: adding 1.5 * 2^23 leaves the integer in the low bits.
LIIF_ANYWHERE inline int32_t round_even(float v) { return static_cast<int32_t>(bits_of(v + 12582912.0f)) - 0x4b400000; }

}  // namespace
}  // namespace liif
