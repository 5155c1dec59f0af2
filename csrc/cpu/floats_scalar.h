// Vectors of 16 floats in plain C++, which compilers turn into what the processor has; see product_simd.h for what they must
// have.
#pragma once

#include "../decode.h"

namespace liif {
namespace {

struct Floats {
  struct Reg {
    float v[kPanel];
  };
  static constexpr int kLanes = kPanel;
  template <class F>
  static Reg each(F f) {
    Reg r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = f(i);
    return r;
  }
  static Reg load(const float* p) {
    return each([&](int i) { return p[i]; });
  }
  static void store(float* p, const Reg& a) {
    for (int i = 0; i < kLanes; ++i) p[i] = a.v[i];
  }
  static Reg set1(float v) {
    return each([&](int) { return v; });
  }
  static Reg add(const Reg& a, const Reg& b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
  }
  static Reg sub(const Reg& a, const Reg& b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
  }
  static Reg mul(const Reg& a, const Reg& b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
  }
  static Reg fma(const Reg& a, const Reg& b, const Reg& c) {
    return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
  }
  static Reg relu(const Reg& a) {
    return each([&](int i) { return a.v[i] < 0 ? 0 : a.v[i]; });
  }
};

struct F32 {
  using V = Floats;
  using Elem = float;
  using Word = float;
  using Weights = Floats::Reg;
  static constexpr int kPerWord = 1, kRows = 4, kVectors = 1;
  static Floats::Reg load(const float* p) { return V::load(p); }
  static void store(float* p, const Floats::Reg& v) { V::store(p, v); }
  static float value(float v) { return v; }
  static Word word(const float* p) { return *p; }
  static Weights weights(const float* p) { return V::load(p); }
  static Floats::Reg mac(const Floats::Reg& acc, Word x, const Weights& w) { return V::fma(V::set1(x), w, acc); }
};

// Stored alone.
struct Bf16 {
  using V = Floats;
  using Elem = uint16_t;
  static Floats::Reg load(const uint16_t* p) {
    return V::each([&](int i) { return bf16_to_float(p[i]); });
  }
  static void store(uint16_t* p, const Floats::Reg& v) {
    for (int i = 0; i < V::kLanes; ++i) p[i] = float_to_bf16(v.v[i]);
  }
  static float value(uint16_t v) { return bf16_to_float(v); }
};

}  // namespace
}  // namespace liif
