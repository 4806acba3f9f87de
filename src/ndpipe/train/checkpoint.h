// Training state in a file (docs/formats/tail_checkpoint.md describes the bytes).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/train/linear_tail.h"

namespace ndpipe::train {

// What a checkpoint holds beside its tensors is text: the options and where training stands.
struct Checkpoint {
  std::map<std::string, std::string> metadata;
  std::vector<NamedTensor> tensors;
};

// A safetensors file with the metadata, a format mark and the SHA-256 of the tensors' bytes. Equal
// checkpoints give equal bytes.
std::vector<uint8_t> SerializeCheckpoint(const Checkpoint& checkpoint);

// kDataLoss, with the reason, for anything that SerializeCheckpoint cannot have made or that was
// damaged since.
Result<Checkpoint> ParseCheckpoint(std::span<const uint8_t> bytes);

}  // namespace ndpipe::train
