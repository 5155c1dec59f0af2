// The colour conversions for CUDA devices, in one pass each. Compiled with --fmad=false, for the bits of the other
// implementations.
//
// A thread has 4 columns of 2 rows of pixels, and so 2 chroma samples of a component: a warp reads and writes rows of 128 pixels.
// Memory's bandwidth is the floor: a pixel is 1.5 bytes of NV12 or YUV420P (3 of P010 and YUV420P10) on one side, 3 (uint8), 6
// (uint16, half precision) or 12 (float) on the other. A frame of 3840 x 2160 from NV12 to halves moves 62 MB, which is 19 us at
// 3.35 TB/s; arithmetic and instructions, some 40 a pixel, are fewer than a device has in that time. What neighbouring threads
// read too, the chroma around theirs or the column to the left, comes from the first cache, so shared memory would save no
// traffic.
#include <cuda_runtime.h>

#include "colors.h"

namespace liif {
namespace {

constexpr int kColumns = 4, kRows = 2;                // of pixels, a thread
constexpr int kThreadsAcross = 32, kThreadsDown = 4;  // of a block

// What the host finds out once a launch.
struct Plan {
  ColorParams p;
  ChromaFilter fy, fx;
  // 4 pixels of a row are one aligned access a channel (planar), or three (packed: channels of a pixel are neighbours).
  bool luma_vectors, chroma_vectors, planar, packed;
};

// N values that are loaded and stored together.
template <class T, int N>
struct alignas(N * sizeof(T)) Vector {
  T v[N];
};

template <int N, class T>
__device__ Vector<T, N> load_vector(const T* at) {
  return *reinterpret_cast<const Vector<T, N>*>(at);
}

template <int N, class T>
__device__ void store_vector(T* at, const Vector<T, N>& v) {
  *reinterpret_cast<Vector<T, N>*>(at) = v;
}

template <class T>
__device__ T* pixel_at(const ColorParams& p, int64_t row, int64_t column) {
  return static_cast<T*>(p.rgb) + row * p.rgb_row_stride + column * p.rgb_column_stride;
}

template <class Rgb>
__device__ void store_pixels(const Plan& plan, int row, int column, int count, const float rgb[3][kColumns]) {
  const ColorParams& p = plan.p;
  Rgb* at = pixel_at<Rgb>(p, row, column);
  if (count == kColumns && plan.planar) {
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      Vector<Rgb, kColumns> line;
#pragma unroll
      for (int i = 0; i < kColumns; ++i) store_rgb_value(rgb[c][i], &line.v[i]);
      store_vector(at + c * p.rgb_channel_stride, line);
    }
  } else if (count == kColumns && plan.packed) {
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      Vector<Rgb, kColumns> line;
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
        const int number = kColumns * part + k;
        store_rgb_value(rgb[number % 3][number / 3], &line.v[k]);
      }
      store_vector(at + kColumns * part, line);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (i < count) store_rgb_value(rgb[c][i], at + i * p.rgb_column_stride + c * p.rgb_channel_stride);
      }
    }
  }
}

// Columns `column` - 1 to `column` + 3 of a row; those beyond an edge are the edge's.
template <class Rgb>
__device__ void load_pixels(const Plan& plan, int row, int column, int count, float rgb[3][kColumns + 1]) {
  const ColorParams& p = plan.p;
  const Rgb* at = pixel_at<Rgb>(p, row, column);
  if (count == kColumns && plan.planar) {
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const auto line = load_vector<kColumns>(at + c * p.rgb_channel_stride);
#pragma unroll
      for (int i = 0; i < kColumns; ++i) rgb[c][1 + i] = rgb_value(line.v[i]);
    }
  } else if (count == kColumns && plan.packed) {
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      const auto line = load_vector<kColumns>(at + kColumns * part);
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
        const int number = kColumns * part + k;
        rgb[number % 3][1 + number / 3] = rgb_value(line.v[k]);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const int inside = i < count ? i : count - 1;
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        rgb[c][1 + i] = rgb_value(at[inside * p.rgb_column_stride + c * p.rgb_channel_stride]);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    rgb[c][0] = column ? rgb_value(at[c * p.rgb_channel_stride - p.rgb_column_stride]) : rgb[c][1];
#pragma unroll
    for (int i = 0; i <= kColumns; ++i) rgb[c][i] -= p.zero[c];
  }
}

// A component's chroma interpolated for the thread's pixels.
template <class T>
__device__ void chroma_of(const Plan& plan, const Samples& s, float zero, int chroma_row, int chroma_column,
                          float out[kRows][kColumns]) {
  const ColorParams& p = plan.p;
  const int rows = static_cast<int>((p.height + 1) / 2), columns = static_cast<int>((p.width + 1) / 2);
  constexpr int kAround = kColumns / 2 + kUp - 1;
  float line[kRows][kAround];
  const T* from[kUp];
#pragma unroll
  for (int k = 0; k < kUp; ++k) {
    from[k] = static_cast<const T*>(s.data) + bounded(chroma_row + k - 2, 0, rows - 1) * s.row_stride;
  }
#pragma unroll
  for (int i = 0; i < kAround; ++i) {
    const int64_t at = bounded(chroma_column + i - 2, 0, columns - 1) * s.step;
    float v[kUp];
#pragma unroll
    for (int k = 0; k < kUp; ++k) v[k] = sample_value(from[k][at], p.unused);
#pragma unroll
    for (int r = 0; r < kRows; ++r) line[r][i] = upsampled(plan.fy.up[r], v[0], v[1], v[2], v[3], v[4]) - zero;
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int x = 0; x < kColumns; ++x) {
      const float* v = line[r] + x / 2;
      out[r][x] = upsampled(plan.fx.up[x % 2], v[0], v[1], v[2], v[3], v[4]);
    }
  }
}

template <class T, class Rgb>
__global__ void __launch_bounds__(kThreadsAcross* kThreadsDown) to_rgb_kernel(const __grid_constant__ Plan plan) {
  const ColorParams& p = plan.p;
  const int column = kColumns * (blockIdx.x * kThreadsAcross + threadIdx.x);
  const int row = kRows * (blockIdx.y * kThreadsDown + threadIdx.y);
  if (column >= p.width || row >= p.height) return;
  const int count = static_cast<int>(p.width - column < kColumns ? p.width - column : kColumns);
  float u[kRows][kColumns], v[kRows][kColumns];
  chroma_of<T>(plan, p.u, p.zero[1], row / 2, column / 2, u);
  chroma_of<T>(plan, p.v, p.zero[2], row / 2, column / 2, v);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (row + r >= p.height) break;
    const T* at = static_cast<const T*>(p.y.data) + (row + r) * p.y.row_stride + column;
    Vector<T, kColumns> luma{};
    if (count == kColumns && plan.luma_vectors) {
      luma = load_vector<kColumns>(at);
    } else {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        if (i < count) luma.v[i] = at[i];
      }
    }
    float rgb[3][kColumns];
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const float y = sample_value(luma.v[i], p.unused) - p.zero[0];
#pragma unroll
      for (int c = 0; c < 3; ++c) rgb[c][i] = converted(p, c, y, u[r][i], v[r][i]);
    }
    store_pixels<Rgb>(plan, row + r, column, count, rgb);
  }
}

template <class T, class Rgb>
__global__ void __launch_bounds__(kThreadsAcross* kThreadsDown) from_rgb_kernel(const __grid_constant__ Plan plan) {
  const ColorParams& p = plan.p;
  const int column = kColumns * (blockIdx.x * kThreadsAcross + threadIdx.x);
  const int row = kRows * (blockIdx.y * kThreadsDown + threadIdx.y);
  if (column >= p.width || row >= p.height) return;
  const int count = static_cast<int>(p.width - column < kColumns ? p.width - column : kColumns);
  float half[3][kColumns + 1];
#pragma unroll
  for (int k = 0; k < kDown; ++k) {
    const int wanted = row + k - 1;
    const int there = bounded(wanted, 0, static_cast<int>(p.height) - 1);
    float rgb[3][kColumns + 1] = {};
    // A row of no weight is not read.
    if (k > 0 || plan.fy.down[0] != 0) load_pixels<Rgb>(plan, there, column, count, rgb);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
#pragma unroll
      for (int i = 0; i <= kColumns; ++i) {
        const float part = plan.fy.down[k] * rgb[c][i];  // in the order of `downsampled`
        half[c][i] = k ? half[c][i] + part : part;
      }
    }
    if (k == 0 || wanted != there) continue;
    T* at = static_cast<T*>(p.y.data) + there * p.y.row_stride + column;
    Vector<T, kColumns> luma;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      luma.v[i] = stored_sample<T>(converted(p, 0, rgb[0][1 + i], rgb[1][1 + i], rgb[2][1 + i]), p.unused);
    }
    if (count == kColumns && plan.luma_vectors) {
      store_vector(at, luma);
    } else {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        if (i < count) at[i] = luma.v[i];
      }
    }
  }
  T chroma[kColumns / 2][2];
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) {
    float mean[3];
#pragma unroll
    for (int c = 0; c < 3; ++c) mean[c] = downsampled(plan.fx.down, half[c][2 * i], half[c][2 * i + 1], half[c][2 * i + 2]);
#pragma unroll
    for (int c = 0; c < 2; ++c) chroma[i][c] = stored_sample<T>(converted(p, 1 + c, mean[0], mean[1], mean[2]), p.unused);
  }
  T* u = static_cast<T*>(p.u.data) + row / 2 * p.u.row_stride + column / 2 * p.u.step;
  T* v = static_cast<T*>(p.v.data) + row / 2 * p.v.row_stride + column / 2 * p.v.step;
  if (count == kColumns && plan.chroma_vectors) {
    if (p.u.step == 2) {  // v is the element after u
      store_vector(u, Vector<T, 4>{{chroma[0][0], chroma[0][1], chroma[1][0], chroma[1][1]}});
    } else {
      store_vector(u, Vector<T, 2>{{chroma[0][0], chroma[1][0]}});
      store_vector(v, Vector<T, 2>{{chroma[0][1], chroma[1][1]}});
    }
  } else {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) {
      if (2 * i >= count) break;
      u[i * p.u.step] = chroma[i][0];
      v[i * p.v.step] = chroma[i][1];
    }
  }
}

struct ToRgb {
  template <class T, class Rgb>
  static constexpr auto kernel = to_rgb_kernel<T, Rgb>;
};
struct FromRgb {
  template <class T, class Rgb>
  static constexpr auto kernel = from_rgb_kernel<T, Rgb>;
};

template <class Way, class T>
void (*kernel_for(Type rgb))(Plan) {
  switch (rgb) {
    case Type::u8: return Way::template kernel<T, uint8_t>;
    case Type::u16: return Way::template kernel<T, uint16_t>;
    case Type::bf16: return Way::template kernel<T, BF16>;
    case Type::f16: return Way::template kernel<T, F16>;
    default: return Way::template kernel<T, float>;
  }
}

bool aligned(const void* first, int64_t bytes) { return reinterpret_cast<uintptr_t>(first) % bytes == 0; }

Plan plan_for(const ColorParams& p) {
  const int64_t sample = p.sample == Type::u8 ? 1 : 2;
  const int64_t number = p.rgb_type == Type::u8 ? 1 : p.rgb_type == Type::f32 ? 4 : 2;
  const bool rgb = aligned(p.rgb, kColumns * number) && p.rgb_row_stride % kColumns == 0;
  const int64_t chroma = kColumns / 2 * p.u.step;  // elements a thread stores at once
  Plan plan{p, chroma_filter(p.between_y), chroma_filter(p.between_x), false, false, false, false};
  plan.luma_vectors = aligned(p.y.data, kColumns * sample) && p.y.row_stride % kColumns == 0;
  plan.chroma_vectors = aligned(p.u.data, chroma * sample) && p.u.row_stride % chroma == 0 &&
                        (p.u.step == 2 || (aligned(p.v.data, chroma * sample) && p.v.row_stride % chroma == 0));
  plan.planar = rgb && p.rgb_column_stride == 1 && p.rgb_channel_stride % kColumns == 0;
  plan.packed = rgb && p.rgb_column_stride == 3 && p.rgb_channel_stride == 1;
  return plan;
}

CudaError said(cudaError_t error) {
  return error == cudaSuccess ? CudaError{nullptr, nullptr} : CudaError{cudaGetErrorName(error), cudaGetErrorString(error)};
}

unsigned blocks(int64_t size, int64_t of) { return static_cast<unsigned>((size + of - 1) / of); }

template <class Way>
CudaError launch(const ColorParams& p, int device, void* stream) {
  int current = 0;
  cudaError_t error = cudaGetDevice(&current);
  if (error == cudaSuccess && current != device) error = cudaSetDevice(device);
  if (error != cudaSuccess) return said(error);
  Plan plan = plan_for(p);
  void* arguments[] = {&plan};
  const auto kernel = p.sample == Type::u8 ? kernel_for<Way, uint8_t>(p.rgb_type) : kernel_for<Way, uint16_t>(p.rgb_type);
  const dim3 grid(blocks(p.width, kColumns * kThreadsAcross), blocks(p.height, kRows * kThreadsDown));
  return said(
      cudaLaunchKernel(kernel, grid, dim3(kThreadsAcross, kThreadsDown), arguments, 0, static_cast<cudaStream_t>(stream)));
}

}  // namespace

CudaError cuda_problem() {
  int count = 0;
  return said(cudaGetDeviceCount(&count));
}

CudaError to_rgb_cuda(const ColorParams& p, int device, void* stream) { return launch<ToRgb>(p, device, stream); }
CudaError from_rgb_cuda(const ColorParams& p, int device, void* stream) { return launch<FromRgb>(p, device, stream); }

}  // namespace liif
