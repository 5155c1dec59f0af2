// CUDA's runtime for machines without it, as far as csrc/cuda uses it: a launch runs all threads of all blocks, one after the
// other, which is enough for kernels whose threads do not wait for each other.
#pragma once

#include <cstddef>

#define __global__
#define __launch_bounds__(threads)
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline dim3 blockIdx, threadIdx;

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidDevice };
inline const char* cudaGetErrorName(cudaError_t) { return "cudaErrorInvalidDevice"; }
inline const char* cudaGetErrorString(cudaError_t) { return "invalid device ordinal"; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) { return device ? cudaErrorInvalidDevice : cudaSuccess; }

template <class Parameter>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameter), dim3 grid, dim3 block, void** arguments, size_t, cudaStream_t) {
  for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
      for (threadIdx.y = 0; threadIdx.y < block.y; ++threadIdx.y) {
        for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x) kernel(*static_cast<Parameter*>(arguments[0]));
      }
    }
  }
  return cudaSuccess;
}
