// The operator's calls over real loopback TCP.
#include <gmock/gmock.h>

#include "ndpipe/rpc/rpc_fakes.h"

namespace ndpipe::rpc {
namespace {

using testing::HasSubstr;

void ExpectSameJob(const JobStatus& got, const JobStatus& sent) {
  EXPECT_EQ(got.id, sent.id);
  EXPECT_EQ(got.kind, sent.kind);
  EXPECT_EQ(got.state, sent.state);
  EXPECT_EQ(got.detail, sent.detail);
  EXPECT_EQ(got.done, sent.done);
  EXPECT_EQ(got.total, sent.total);
  EXPECT_EQ(got.failed, sent.failed);
  EXPECT_EQ(got.version, sent.version);
  EXPECT_EQ(got.parent, sent.parent);
  EXPECT_EQ(got.created_us, sent.created_us);
  EXPECT_EQ(got.started_us, sent.started_us);
  EXPECT_EQ(got.finished_us, sent.finished_us);
  EXPECT_EQ(got.photos_per_second, sent.photos_per_second);
  EXPECT_EQ(got.seconds_left, sent.seconds_left);
  EXPECT_EQ(got.error, sent.error);
  EXPECT_EQ(got.report_json, sent.report_json);
  EXPECT_EQ(got.refused_blocks, sent.refused_blocks);
}

void ExpectSameVersion(const VersionStatus& got, const VersionStatus& sent) {
  EXPECT_EQ(got.number, sent.number);
  EXPECT_EQ(got.backbone_name, sent.backbone_name);
  EXPECT_EQ(got.backbone_hash, sent.backbone_hash);
  EXPECT_EQ(got.cut, sent.cut);
  EXPECT_EQ(got.state, sent.state);
  EXPECT_EQ(got.num_classes, sent.num_classes);
  EXPECT_EQ(got.tail_bytes, sent.tail_bytes);
  EXPECT_EQ(got.model_bytes, sent.model_bytes);
  EXPECT_EQ(got.job, sent.job);
  EXPECT_EQ(got.created_us, sent.created_us);
  EXPECT_EQ(got.base, sent.base);
  EXPECT_EQ(got.delta_bits, sent.delta_bits);
  EXPECT_EQ(got.is_complete, sent.is_complete);
  EXPECT_EQ(got.sent_bytes, sent.sent_bytes);
  EXPECT_EQ(got.full_sends, sent.full_sends);
  EXPECT_EQ(got.delta_sends, sent.delta_sends);
}

TEST_F(RpcTest, StatusHasAllFields) {
  const auto got = operator_->GetStatus();
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->cluster_id, "c");
  EXPECT_EQ(got->program_version, "0.1.0");
  EXPECT_EQ(got->photos, 1);
  EXPECT_EQ(got->missing, 2);
  EXPECT_EQ(got->labelled, 3);
  EXPECT_EQ(got->failed, 4);
  EXPECT_EQ(got->pending, 5);
  EXPECT_EQ(got->user_labelled, 6);
  EXPECT_EQ(got->serving_version, 7);
  ASSERT_EQ(got->stores.size(), 1u);
  EXPECT_EQ(got->stores[0].id, "s");
  EXPECT_EQ(got->stores[0].name, "n");
  EXPECT_EQ(got->stores[0].device, "cpu");
  EXPECT_TRUE(got->stores[0].connected);
  EXPECT_EQ(got->stores[0].photos, 8);
  EXPECT_EQ(got->stores[0].applied_changes, 9);
  EXPECT_EQ(got->stores[0].last_change, 10);
  EXPECT_EQ(got->stores[0].last_seen_us, 11);
  EXPECT_EQ(got->stores[0].feature_bytes, 12);
  EXPECT_EQ(got->stores[0].sidecar_bytes, 13);
  ASSERT_EQ(got->jobs.size(), 1u);
  ExpectSameJob(got->jobs[0], FakeOperator::SomeJob(1));
}

TEST_F(RpcTest, JobsAndVersions) {
  operators_.num_jobs = 20'000;  // more than one message could hold
  const auto jobs = operator_->ListJobs();
  ASSERT_TRUE(jobs) << jobs.error().message;
  ASSERT_EQ(jobs->size(), 20'000u);
  ExpectSameJob(jobs->back(), FakeOperator::SomeJob(19'999));
  const auto job = operator_->GetJob(1);
  ASSERT_TRUE(job);
  ExpectSameJob(*job, FakeOperator::SomeJob(1));
  const auto missing = operator_->GetJob(9);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(missing.error().message, "there is no job 9");
  EXPECT_TRUE(operator_->CancelJob(6));
  EXPECT_EQ(operators_.cancelled_job, 6);
  const auto versions = operator_->ListVersions();
  ASSERT_TRUE(versions);
  ASSERT_EQ(versions->size(), 1u);
  ExpectSameVersion(versions->at(0), FakeOperator::SomeVersion());
}

TEST_F(RpcTest, JobsStart) {
  const auto finetune = operator_->StartFinetune({.backbone = "net",
                                                  .num_runs = 3,
                                                  .min_stores = 2,
                                                  .recipe = "ndpipe",
                                                  .seed = ~uint64_t{0},
                                                  .precision = "bf16",
                                                  .on_loss = "continue",
                                                  .relabel = false,
                                                  .epochs = 4,
                                                  .learning_rate = 0.25,
                                                  .weight_decay = 0,
                                                  .patience = 3,
                                                  .replay = false,
                                                  .cut = "/blocks.3/Add_output_0",
                                                  .continue_from = 6,
                                                  .delta_bits = 4,
                                                  .plan = "auto",
                                                  .plan_objective = "bytes",
                                                  .plan_min_accuracy = 0.25});
  ASSERT_TRUE(finetune) << finetune.error().message;
  EXPECT_EQ(*finetune, 21);
  EXPECT_EQ(operators_.finetune.backbone, "net");
  EXPECT_EQ(operators_.finetune.num_runs, 3);
  EXPECT_EQ(operators_.finetune.min_stores, 2);
  EXPECT_EQ(operators_.finetune.recipe, "ndpipe");
  EXPECT_EQ(operators_.finetune.seed, ~uint64_t{0});
  EXPECT_EQ(operators_.finetune.precision, "bf16");
  EXPECT_EQ(operators_.finetune.on_loss, "continue");
  EXPECT_FALSE(operators_.finetune.relabel);
  EXPECT_EQ(operators_.finetune.epochs, 4);
  EXPECT_EQ(operators_.finetune.plan, "auto");
  EXPECT_EQ(operators_.finetune.plan_objective, "bytes");
  EXPECT_EQ(operators_.finetune.plan_min_accuracy, 0.25);
  EXPECT_EQ(operators_.finetune.learning_rate, 0.25);
  EXPECT_EQ(operators_.finetune.weight_decay, 0);  // given, unlike mixup
  EXPECT_EQ(operators_.finetune.mixup, std::nullopt);
  EXPECT_EQ(operators_.finetune.patience, 3);
  EXPECT_FALSE(operators_.finetune.replay);
  EXPECT_EQ(operators_.finetune.cut, "/blocks.3/Add_output_0");
  EXPECT_EQ(operators_.finetune.continue_from, 6);
  EXPECT_EQ(operators_.finetune.delta_bits, 4);
  FinetuneRequest impossible;
  impossible.num_runs = 0;
  EXPECT_EQ(operator_->StartFinetune(impossible).error().code, ErrorCode::kInvalidArgument);
  impossible.num_runs = 1;
  impossible.mixup = std::numeric_limits<double>::quiet_NaN();
  const auto refused = operator_->StartFinetune(impossible);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message, HasSubstr("mixup"));

  const auto relabel = operator_->StartRelabel(
      {.version = 8, .precision = "bf16", .on_loss = "continue", .no_switch = true});
  ASSERT_TRUE(relabel);
  EXPECT_EQ(*relabel, 22);
  EXPECT_EQ(operators_.relabel.version, 8);
  EXPECT_EQ(operators_.relabel.precision, "bf16");
  EXPECT_EQ(operators_.relabel.on_loss, "continue");
  EXPECT_TRUE(operators_.relabel.no_switch);
}

TEST_F(RpcTest, ProfilesAndPlans) {
  const auto job = operator_->StartProfile({.backbone = "net",
                                            .precision = "bf16",
                                            .recipe = "ndpipe",
                                            .num_photos = 77,
                                            .max_cuts = 5,
                                            .refresh = true,
                                            .network_only = true});
  ASSERT_TRUE(job) << job.error().message;
  EXPECT_EQ(*job, 23);
  EXPECT_EQ(operators_.profile.backbone, "net");
  EXPECT_EQ(operators_.profile.precision, "bf16");
  EXPECT_EQ(operators_.profile.recipe, "ndpipe");
  EXPECT_EQ(operators_.profile.num_photos, 77);
  EXPECT_EQ(operators_.profile.max_cuts, 5);
  EXPECT_TRUE(operators_.profile.refresh);
  EXPECT_TRUE(operators_.profile.network_only);
  EXPECT_EQ(operator_->StartProfile({.num_photos = 0}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(operator_->StartProfile({.max_cuts = 1000}).error().code, ErrorCode::kInvalidArgument);

  const auto plan = operator_->MakePlan({.backbone = "net",
                                         .precision = "bf16",
                                         .recipe = "ndpipe",
                                         .epochs = 3,
                                         .num_stores = 4,
                                         .objective = "energy",
                                         .min_accuracy = 0.5,
                                         .idle_watts = 1,
                                         .store_watts = 2,
                                         .tuner_watts = 3});
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(*plan, operators_.plan_json);
  EXPECT_EQ(operators_.plan.epochs, 3);
  EXPECT_EQ(operators_.plan.num_stores, 4);
  EXPECT_EQ(operators_.plan.objective, "energy");
  EXPECT_EQ(operators_.plan.min_accuracy, 0.5);
  EXPECT_EQ(operators_.plan.idle_watts, 1);
  EXPECT_EQ(operators_.plan.store_watts, 2);
  EXPECT_EQ(operators_.plan.tuner_watts, 3);
  ASSERT_TRUE(operator_->MakePlan({}));
  EXPECT_EQ(operators_.plan.min_accuracy, std::nullopt);
  EXPECT_EQ(operator_->MakePlan({.min_accuracy = 2}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(operator_->MakePlan({.tuner_watts = -1}).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(RpcTest, SearchAndCorrections) {
  const auto hits =
      operator_->Search({.label = "beach ✓", .source = "model", .limit = 7, .version = 4});
  ASSERT_TRUE(hits) << hits.error().message;
  EXPECT_EQ(operators_.search.label, "beach ✓");
  EXPECT_EQ(operators_.search.source, "model");
  EXPECT_EQ(operators_.search.limit, 7);
  EXPECT_EQ(operators_.search.version, 4);
  ASSERT_EQ(hits->size(), 1u);
  EXPECT_EQ(hits->at(0).photo_id, "ff");
  EXPECT_EQ(hits->at(0).label, "beach");
  EXPECT_EQ(hits->at(0).confidence, 0.5);
  EXPECT_EQ(hits->at(0).source, "model");
  EXPECT_EQ(hits->at(0).version, 3);
  EXPECT_EQ(hits->at(0).store, "s");
  EXPECT_EQ(hits->at(0).path, std::string("photos/\xFF.jpg"));
  EXPECT_EQ(hits->at(0).origin, "holiday");
  EXPECT_TRUE(operator_->SetUserLabel("ff", "sea"));
  EXPECT_EQ(operators_.user_label, std::pair(std::string("ff"), std::string("sea")));
  EXPECT_EQ(operator_->SetUserLabel("", "sea").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(operator_->SetUserLabel("ff", "\xFF").error().code, ErrorCode::kInvalidArgument);
}

TEST_F(RpcTest, FailedPhotosComeWithTheirReasons) {
  const auto failures = operator_->ListFailures(9);
  ASSERT_TRUE(failures) << failures.error().message;
  EXPECT_EQ(operators_.failures_limit, 9);
  ASSERT_EQ(failures->size(), 1u);
  EXPECT_EQ(failures->at(0).photo_id, "ee");
  EXPECT_EQ(failures->at(0).reason, "it is truncated");
  EXPECT_EQ(failures->at(0).version, 4);
  EXPECT_EQ(failures->at(0).store, "s");
  EXPECT_EQ(failures->at(0).path, std::string("photos/\xFF.jpg"));
  EXPECT_EQ(failures->at(0).origin, "holiday");
  EXPECT_EQ(operator_->ListFailures(0).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(RpcTest, ModelsAreSentWhole) {
  const std::string onnx(2'500'000, 'm');
  ASSERT_TRUE(WriteFileDurably(folder_ / "net.onnx", onnx));
  const auto without = operator_->AddModel(folder_ / "net.onnx", {});
  ASSERT_FALSE(without);
  EXPECT_EQ(without.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(without.error().message, HasSubstr("manifest.json"));

  ASSERT_TRUE(WriteFileDurably(folder_ / "manifest.json", std::string_view("{}")));
  const auto added = operator_->AddModel(folder_ / "net.onnx", {});
  ASSERT_TRUE(added) << added.error().message;
  ExpectSameVersion(*added, FakeOperator::SomeVersion());
  EXPECT_EQ(std::string(operators_.onnx.begin(), operators_.onnx.end()), onnx);
  EXPECT_EQ(std::string(operators_.manifest.begin(), operators_.manifest.end()), "{}");
  EXPECT_EQ(operators_.onnx_folder.parent_path(), incoming_);
  EXPECT_TRUE(Eventually([&] { return !std::filesystem::exists(operators_.onnx_folder); }));

  operators_.add_error = Error{ErrorCode::kInvalidArgument, "tensor w has external data"};
  const auto refused = operator_->AddModel(folder_ / "net.onnx", folder_ / "manifest.json");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message, HasSubstr("net.onnx: tensor w has external data"));
  EXPECT_THAT(refused.error().message, HasSubstr("only the ONNX file and its manifest are sent"));
}

}  // namespace
}  // namespace ndpipe::rpc
