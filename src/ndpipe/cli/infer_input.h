// What infer labels: a folder of photos or of preprocessed binaries, a zip of either, a photo
// store, or a single photo.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "ndpipe/extract/extractor.h"
#include "ndpipe/model/manifest.h"
#include "ndpipe/photo/published/preprocessed.h"
#include "ndpipe/photo/store.h"

namespace ndpipe::cli {

// Sidecars of an input's photos, by the input's numbers.
struct InputSidecars {
  photo::SidecarCodec codec = photo::SidecarCodec::kZstd;
  extract::SidecarSource read;  // borrows the input
};

// Photos numbered from 1. Read is thread-safe.
class InferInput : public photo::PhotoSource {
 public:
  virtual int64_t num_photos() const = 0;
  // For people: the path below the folder, in the zip, or of the store's photo. One thread.
  virtual std::string PathOf(int64_t number) = 0;
  // Those of this rule that its photos have already; nothing when there are none.
  virtual std::optional<InputSidecars> FindSidecars(const photo::PreprocessSpec&) { return {}; }
  virtual bool may_have_sidecars() const { return false; }

  // Files beyond this are refused by Read. Before the first Read.
  void LimitBytes(size_t max_bytes) { max_bytes_ = max_bytes; }

 protected:
  size_t max_bytes() const { return max_bytes_; }

 private:
  size_t max_bytes_ = photo::kMaxPhotoBytes;
};

struct OpenedInput {
  std::unique_ptr<InferInput> source;
  bool is_preprocessed = false;  // the files are preprocessed binaries, not photos
  int64_t num_passed_over = 0;   // files beside photos that are none
};

// Photos are told by name and content, hidden files and linked folders are left out. Where there is
// no photo at all, or as_preprocessed is set, every file counts as a preprocessed binary.
// kNotFound: the path, or anything in it; kInvalidArgument: a file that is neither zip nor photo;
// kDataLoss: a damaged zip.
Result<OpenedInput> OpenInferInput(const std::filesystem::path& path, bool as_preprocessed);

// What the binaries hold for a network with this input, told by the first ones that can be read.
// layout: "hwc", "chw", or empty for none given. kInvalidArgument: none of them holds the input;
// uint8 without a layout; float32 that is called hwc.
Result<photo::PreprocessedForm> TellForm(InferInput& source, const photo::PreprocessSpec& spec,
                                         const std::string& layout);

}  // namespace ndpipe::cli
