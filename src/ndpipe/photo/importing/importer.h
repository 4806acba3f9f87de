// Importers: what brings photos (and the labels that their source gives) into a store.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "ndpipe/photo/store.h"

namespace ndpipe::photo {

struct ImportFailure {
  std::string origin;
  std::string reason;
};

struct ImportProgress {
  int64_t done = 0;   // photos handled so far, failed ones too
  int64_t total = 0;  // 0 while unknown
};

struct ImportReport {
  int64_t found = 0;  // candidates seen: added + known + failed
  int64_t added = 0;  // new photos
  int64_t known = 0;  // photos that were there already (by id)
  int64_t failed = 0;
  int64_t source_labels = 0;  // that the photos did not carry yet
  int64_t bytes = 0;          // of added photos
  int64_t moved = 0;          // of photos left in place: files found under another path,
  int64_t changed = 0;        // with other bytes,
  int64_t missing = 0;        // and not found any more
  double seconds = 0;
  std::vector<ImportFailure> failures;  // the first 1,000
};

struct ImportOptions {
  bool in_place = false;  // leave the files where they are (folder sources only)
  // Of several stores that share a source: take photo i when i % num_shares == share. (demo
  // --stores N)
  int64_t share = 0;
  int64_t num_shares = 1;
  // Both are called from the importing thread, at most 10 × a second.
  std::function<void(const ImportProgress&)> on_progress{};
  std::function<void(int64_t done_bytes, int64_t total_bytes)> on_download{};  // total 0: unknown
  std::stop_token stop{};
};

// source:
//   DIR                         a folder, walked recursively; a tree DIR/LABEL/photo is an
//                               ImageFolder tree when every photo lies exactly one level deep, and
//                               the folder names then are source labels
//   cifar100:FILE               the official binary archive (tar.gz with train.bin, test.bin,
//                               fine_label_names.txt)
//   cifar100:download           the same, fetched from its official address into DIR/downloads and
//                               checked; NDPIPE_CIFAR100_URL and NDPIPE_CIFAR100_MD5 name a mirror
//   webdataset:FILE             a tar (plain, gzip, zstd) of samples: files of one name up to its
//   first
//                               dot, one after another; KEY.jpg (or another photo) with its label
//                               in KEY.cls, in the field "label" of KEY.json, or in KEY.txt
//   generate:CLASSES,COUNT,SEED photos made by the project's own generator; every fifth is a test
//                               photo
// kInvalidArgument for a source that is none of these; kCancelled after a stop, with everything
// imported until then kept; a broken photo is a failure in the report, not an error. What the
// report counts is durable. Importing the same source again adds nothing, and goes on where a
// stopped or killed import ended.
Result<ImportReport> Import(PhotoStore& store, const std::string& source,
                            const ImportOptions& options);

}  // namespace ndpipe::photo
