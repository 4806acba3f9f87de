// The importers, one for each kind of source; Import (importer.h) chooses.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "ndpipe/photo/importing/importer.h"

namespace ndpipe::photo {

// The photos of this share among `count`, and the i-th of them.
struct Share {
  int64_t share = 0;
  int64_t num_shares = 1;
  explicit Share(const ImportOptions& options)
      : share(options.share), num_shares(options.num_shares) {}
  int64_t CountOf(int64_t count) const {
    return count <= share ? 0 : (count - share - 1) / num_shares + 1;
  }
  int64_t At(int64_t i) const { return share + i * num_shares; }
};

// Hidden files, links that lead out of the tree and everything that is no photo are passed over. In
// place: photos that lay under the folder and are gone are marked missing. kNotFound and
// kPermissionDenied for the folder itself.
Result<ImportReport> ImportFolder(PhotoStore& store, const std::filesystem::path& folder,
                                  const ImportOptions& options);

// archive: a file, not trusted: kDataLoss when it is damaged, truncated or not of this format,
// kResourceExhausted when it is absurdly large; nothing is imported then.
Result<ImportReport> ImportCifar100(PhotoStore& store, const std::filesystem::path& archive,
                                    const ImportOptions& options);

// archive: a file, not trusted, read once. kDataLoss when it is damaged, truncated or no tar,
// kResourceExhausted when it is absurdly large: what stood before that is imported.
Result<ImportReport> ImportWebDataset(PhotoStore& store, const std::filesystem::path& archive,
                                      const ImportOptions& options);

// arguments: CLASSES,COUNT,SEED.
Result<ImportReport> ImportGenerated(PhotoStore& store, std::string_view arguments,
                                     const ImportOptions& options);

}  // namespace ndpipe::photo
